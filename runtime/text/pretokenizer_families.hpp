// How the families of byte-level BPE split their texts, by the name that GGUF files give
// (tokenizer.ggml.pre). Patterns are those of the families' own tokenizer.json.
#pragma once

#include "runtime/result.hpp"
#include "runtime/text/pretokenizer.hpp"

#include <string_view>

namespace tandem::text {

struct splitting {
  pre_tokenizer steps;
  bool ignore_merges = false;
  bool add_bos = false;  // unless the file says otherwise
  bool compose = false;  // the texts are in NFC
  bool reads_bytes = true;
};

// An unknown name is refused by name.
result<splitting> splitting_by_name(std::string_view name);

}  // namespace tandem::text
