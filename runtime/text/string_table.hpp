// Spellings to ids: an open-addressed table over one block of bytes, made once and read by all
// threads. Most of the time of encoding is spent in `find`.
#pragma once

#include "runtime/text/tokenizer.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::text {

inline constexpr token_id no_token = -1;

class string_table {
 public:
  void reserve(std::size_t count, std::size_t bytes);
  // The first id of a spelling stays when it comes again.
  void insert(std::string_view key, token_id id);
  token_id find(std::string_view key) const;  // no_token when it is not there
  std::size_t size() const { return entries_.size(); }

 private:
  struct entry {
    std::uint32_t begin = 0;
    std::uint32_t length = 0;
    std::uint32_t tag = 0;  // of the hash, so that most misses touch no bytes
    token_id id = no_token;
  };
  void grow(std::size_t slots);

  std::string bytes_;
  std::vector<entry> entries_;
  std::vector<std::uint32_t> slots_;  // index of an entry plus one; 0 is free
};

// Pairs of ids to what they merge into; the lower rank goes first.
struct merge {
  std::uint32_t rank = UINT32_MAX;
  token_id id = no_token;
  bool found() const { return rank != UINT32_MAX; }
};

class merge_table {
 public:
  void reserve(std::size_t count);
  // The last merge of a pair stays when it comes again.
  void insert(token_id left, token_id right, merge m);
  merge find(token_id left, token_id right) const;
  std::size_t size() const { return count_; }

 private:
  struct slot {
    std::uint64_t key = UINT64_MAX;
    merge value;
  };
  std::vector<slot> slots_;
  std::size_t count_ = 0;
};

}  // namespace tandem::text
