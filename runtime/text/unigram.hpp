// Unigram language model: of all ways to cut a piece into tokens, the one whose scores add up to
// the most (Viterbi). Same sums and same choice among equals as the reference, hence double.
#pragma once

#include "runtime/text/byte_trie.hpp"
#include "runtime/text/piece_model.hpp"

#include <array>

namespace tandem::text {

class unigram : public piece_model {
 public:
  struct parts {
    byte_trie pieces;            // what text can become; control tokens are not in it
    std::vector<double> scores;  // by id
    double lowest_score = 0;
    bool single_precision = false;  // sums as SentencePiece makes them, which decides among equals
    std::optional<token_id> unknown;
    bool byte_fallback = false;
    bool fuse_unknown = true;
    std::array<token_id, 256> byte_ids{};  // of <0x00>...; no_token where there is none
  };
  explicit unigram(parts p) : parts_(std::move(p)) {}

  void encode(std::string_view piece, std::vector<token_id>& out) const override;

 private:
  void emit_unknown(std::string_view text, std::vector<token_id>& out) const;
  parts parts_;
};

}  // namespace tandem::text
