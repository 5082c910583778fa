// SentencePiece's precompiled character map: a double-array trie of what to replace, behind it the
// replacements. The file's bytes are not trusted: every index is checked on the way.
#pragma once

#include "runtime/result.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::text {

class charsmap {
 public:
  // `blob`: the trie's bytes (uint32, little-endian), the trie, then zero-ended replacements.
  static result<charsmap> parse(std::string_view blob);

  struct replacement {
    std::size_t length = 0;  // bytes of text replaced
    std::string_view text;
  };
  // The shortest and the longest entry that begins `text`. Hugging Face's reader goes by the
  // shortest, SentencePiece by the longest.
  std::optional<replacement> shortest(std::string_view text) const;
  std::optional<replacement> longest(std::string_view text) const;

 private:
  std::optional<replacement> search(std::string_view text, bool first) const;

  std::vector<std::uint32_t> units_;
  std::string texts_;
};

}  // namespace tandem::text
