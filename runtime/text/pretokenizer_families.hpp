// How the families of byte-level BPE split their texts, by the name that GGUF files give
// (tokenizer.ggml.pre). Patterns are those of the families' own tokenizer.json.
#pragma once

#include "runtime/result.hpp"
#include "runtime/text/pretokenizer.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace tandem::text {

struct splitting {
  pre_tokenizer steps;
  std::vector<std::string> patterns;  // of the steps: each isolates what it matches
  bool ignore_merges = false;
  bool add_bos = false;  // unless the file says otherwise
  bool compose = false;  // the texts are in NFC
  bool reads_bytes = true;
};

// An unknown name is refused by name.
result<splitting> splitting_by_name(std::string_view name);
// The name of the family that splits so; empty when none does.
std::string_view splitting_name(const std::vector<std::string>& patterns, bool ignore_merges,
                                bool compose);

}  // namespace tandem::text
