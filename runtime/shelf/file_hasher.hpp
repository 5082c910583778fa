// The SHA-256 of a file's beginning, a stretch at a time, so that whoever computes it can look at
// its mailbox in between.
#pragma once

#include "runtime/shelf/open_file.hpp"
#include "runtime/shelf/sha256.hpp"

#include <cstdint>

namespace tandem::shelf {

// About 20 ms of work.
inline constexpr std::uint64_t hashed_at_once = std::uint64_t{32} << 20;

class file_hasher {
 public:
  // `bytes` of it, from the first on.
  file_hasher(open_file file, std::uint64_t bytes) : file_(std::move(file)), bytes_(bytes) {}

  // At most so many more; true: all of them are in.
  result<bool> advance(std::uint64_t bytes_max = hashed_at_once);
  // What has been added so far: the digest of the whole, or to go on from.
  sha256 take_digest() { return std::move(digest_); }

 private:
  open_file file_;
  std::uint64_t bytes_;
  std::uint64_t done_ = 0;
  sha256 digest_;
};

}  // namespace tandem::shelf
