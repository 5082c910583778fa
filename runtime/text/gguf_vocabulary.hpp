// The vocabulary of a GGUF file as the file has it (tokenizer.ggml.*), checked: what tokenizers are
// made of, and what a tokenizer.json is written from.
#pragma once

#include "runtime/formats/gguf.hpp"
#include "runtime/result.hpp"
#include "runtime/text/added_tokens.hpp"
#include "runtime/text/tokenizer.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace tandem::text {

enum class token_kind : std::int64_t { normal = 1, unknown, control, user_defined, unused, byte };

struct gguf_vocabulary {
  const formats::gguf_file* file = nullptr;
  std::vector<std::string> spellings;
  std::vector<token_kind> kinds;
  std::vector<double> scores;

  // `from` must outlive it.
  static result<gguf_vocabulary> read(const formats::gguf_file& from);

  static std::string key(std::string_view name);
  bool flag(std::string_view name, bool otherwise) const {
    return file->boolean(key(name)).value_or(otherwise);
  }
  std::optional<token_id> id(std::string_view name, std::optional<token_id> otherwise = {}) const;
  bool is(std::size_t at, token_kind k) const { return kinds[at] == k; }
  bool special(std::size_t at) const {
    return is(at, token_kind::control) || is(at, token_kind::unknown);
  }
  // Ids that no text spells.
  std::unordered_set<token_id> not_from_text() const;
  // Those that are cut out of texts, in order of id.
  std::vector<added_token> added_tokens() const;
  // tokenizer.ggml.merges; the views are the file's.
  result<std::vector<std::pair<std::string_view, std::string_view>>> merges() const;
};

}  // namespace tandem::text
