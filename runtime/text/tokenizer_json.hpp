// The parts of a tokenizer.json, one reader each. A component we do not know is refused by name.
#pragma once

#include "runtime/result.hpp"
#include "runtime/text/tokenizer_data.hpp"

#include <simdjson.h>
#include <unordered_set>

namespace tandem::text {

result<void> read_normalizer(simdjson::dom::element from, normalizer& to);
result<void> read_pre_tokenizer(simdjson::dom::element from, pre_tokenizer& to);
result<void> read_decoder(simdjson::dom::element from, decoder& to);
// Fills prefix and suffix.
result<void> read_post_processor(simdjson::dom::element from, tokenizer::data& to);
// Fills the vocabulary and the model. `special`: ids that text must not become. `reads_bytes`: the
// pre-tokenizer hands over bytes as they are; only for files where can_read_bytes.
result<void> read_model(simdjson::dom::element from, const std::unordered_set<token_id>& special,
                        bool reads_bytes, tokenizer::data& to);
// BPE whose symbols are bytes in GPT-2's alphabet, so that it can read the bytes themselves.
bool can_read_bytes(simdjson::dom::element model);

}  // namespace tandem::text
