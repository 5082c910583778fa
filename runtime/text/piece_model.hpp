// What turns one piece of text into ids. Four kinds: BPE, Unigram, WordPiece, WordLevel.
//
// The rule that holds for all: a control token's id never comes out of a piece's text. Whoever
// spells one gets the ids of its letters.
#pragma once

#include "runtime/text/string_table.hpp"

#include <optional>
#include <string_view>
#include <vector>

namespace tandem::text {

class piece_model {
 public:
  virtual ~piece_model() = default;
  // Appends the ids of `piece` (valid UTF-8, unless the model reads bytes).
  virtual void encode(std::string_view piece, std::vector<token_id>& out) const = 0;
};

// Each piece is one token or unknown.
class word_level : public piece_model {
 public:
  word_level(string_table pieces, std::optional<token_id> unknown)
      : pieces_(std::move(pieces)), unknown_(unknown) {}
  void encode(std::string_view piece, std::vector<token_id>& out) const override {
    const token_id id = pieces_.find(piece);
    if (id != no_token) {
      out.push_back(id);
    } else if (unknown_) {
      out.push_back(*unknown_);
    }
  }

 private:
  string_table pieces_;
  std::optional<token_id> unknown_;
};

}  // namespace tandem::text
