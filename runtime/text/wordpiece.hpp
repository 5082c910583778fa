// WordPiece: a word is cut from its left into the longest tokens; a word that cannot be cut to its
// end is unknown as a whole.
#pragma once

#include "runtime/text/byte_trie.hpp"
#include "runtime/text/piece_model.hpp"

namespace tandem::text {

class wordpiece : public piece_model {
 public:
  struct parts {
    byte_trie beginnings;     // tokens a word can begin with
    byte_trie continuations;  // tokens behind the first, without their "##"
    std::size_t word_characters_max = 100;
    std::optional<token_id> unknown;
  };
  explicit wordpiece(parts p) : parts_(std::move(p)) {}

  void encode(std::string_view piece, std::vector<token_id>& out) const override;

 private:
  bool cut(std::string_view word, std::vector<token_id>& out) const;
  parts parts_;
};

}  // namespace tandem::text
