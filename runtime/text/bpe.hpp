// Byte-pair encoding: begin with characters (or bytes), merge the best neighbouring pair until none
// is left. The best is the lowest rank, of equal ones the leftmost.
#pragma once

#include "runtime/text/piece_model.hpp"
#include "runtime/text/utf8.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>

namespace tandem::text {

class bpe : public piece_model {
 public:
  struct parts {
    // What text can become; control tokens are not in it. Keys are raw bytes when `reads_bytes`.
    string_table pieces;
    // By pair of ids, or, with `merge_by_text`, by the text of both: `ranks[id]` of that piece.
    merge_table merges;
    bool merge_by_text = false;
    std::vector<std::uint32_t> ranks;
    // Control tokens that merges lead to: what each is made of.
    std::unordered_map<token_id, std::pair<token_id, token_id>> control_parts;
    bool reads_bytes = false;    // symbols are bytes
    bool ignore_merges = false;  // a piece that is a token is that token
    std::array<token_id, 256>
        byte_ids{};  // of bytes, or of <0x00>...; all no_token without fallback
    bool byte_fallback = false;
    bool fuse_unknown = false;
    std::optional<token_id> unknown;
    std::string continuing_prefix;  // of symbols behind the first
    std::string end_suffix;         // of the last symbol
    std::size_t vocabulary_size = 0;
    // When not empty: the space of the vocabulary ("▁"). No token has it behind a character other
    // than those listed, so a piece may be cut before it without changing the result.
    std::string space;
    std::unordered_set<char32_t> before_space;
  };
  explicit bpe(parts p);

  void encode(std::string_view piece, std::vector<token_id>& out) const override;

 private:
  struct word;
  void encode_cut(std::string_view piece, std::vector<token_id>& out) const;
  void read_symbols(std::string_view piece, word& w) const;
  void read_character(std::string_view piece, text_range at, word& w,
                      std::optional<text_range>& unknown) const;
  merge find_merge(const word& w, std::size_t left, std::size_t right) const;
  void merge_short(word& w) const;
  void merge_long(word& w) const;
  void emit(token_id id, std::vector<token_id>& out) const;

  enum class whole : std::uint8_t { unseen, one_token, several };
  parts parts_;
  // Whether merging a token's own text gives that token back: learned at its first use.
  std::unique_ptr<std::atomic<whole>[]> whole_;
};

}  // namespace tandem::text
