// Tokens that are cut out of a text before anything else is done to it: control tokens and what a
// model's makers added by hand.
#pragma once

#include "runtime/text/byte_trie.hpp"
#include "runtime/text/utf8.hpp"

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::text {

struct added_token {
  std::string content;
  token_id id = no_token;
  bool single_word = false;  // only between characters that are no word characters
  bool lstrip = false;       // takes the white space on its left with it
  bool rstrip = false;       // and on its right
  bool normalized = true;    // looked for in the normalized text
  bool special = false;
};

class added_token_finder {
 public:
  // `spelling` is what to look for: the content, or the normalized content.
  void add(const added_token& token, std::string_view spelling);
  bool empty() const { return trie_.empty(); }

  struct part {
    text_range range;
    token_id id = no_token;  // no_token: ordinary text
  };
  // Cuts `text` into tokens and what stands between, from left to right, the longest token first.
  // A special token counts only where `may_be_special` says so.
  std::vector<part> cut(std::string_view text,
                        const std::function<bool(text_range)>& may_be_special) const;

 private:
  const added_token* longest_at(std::string_view text, std::size_t at, std::size_t& end,
                                const std::function<bool(text_range)>& may_be_special) const;

  struct entry {
    added_token token;
    // Bytes of the spelling before the content, which a normalizer put there: whoever wrote the
    // content wrote the token.
    std::size_t lead = 0;
  };
  std::vector<entry> tokens_;
  byte_trie trie_;  // of indices into tokens_
};

}  // namespace tandem::text
