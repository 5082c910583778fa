// tokenizer.ggml.* of a GGUF file from Hugging Face's tokenizer files: byte-level BPE whose way of
// splitting a GGUF file can name. Other kinds are refused by name.
#pragma once

#include "runtime/formats/gguf_writer.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <string_view>

namespace tandem::text {

// `config_json` is tokenizer_config.json, or empty. `vocabulary_size` rows have the embedding.
result<void> put_tokenizer(formats::gguf_writer& to, std::string_view tokenizer_json,
                           std::string_view config_json, std::int64_t vocabulary_size);

}  // namespace tandem::text
