// A prefix tree over bytes: every known spelling that begins at a place is found in one walk. Used
// by Unigram, WordPiece and added tokens.
#pragma once

#include "runtime/text/string_table.hpp"

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace tandem::text {

class byte_trie {
 public:
  using node = std::uint32_t;
  static constexpr node root = 0;
  static constexpr node nowhere = UINT32_MAX;

  byte_trie() : ids_(1, no_token) { first_.fill(nowhere); }

  // Empty keys are left out; the last value of a key stays.
  void insert(std::string_view key, token_id value);
  bool empty() const { return ids_.size() == 1; }

  node step(node from, char byte) const {
    if (from == root) return first_[static_cast<unsigned char>(byte)];
    const merge found = edges_.find(static_cast<token_id>(from), static_cast<unsigned char>(byte));
    return found.found() ? found.rank : nowhere;
  }
  token_id value(node n) const { return ids_[n]; }
  bool begins(char byte) const { return first_[static_cast<unsigned char>(byte)] != nowhere; }

 private:
  std::array<node, 256> first_;
  merge_table edges_;  // (node, byte) to the next node, which stands in `rank`
  std::vector<token_id> ids_;
};

}  // namespace tandem::text
