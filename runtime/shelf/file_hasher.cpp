#include "runtime/shelf/file_hasher.hpp"

#include <algorithm>
#include <vector>

namespace tandem::shelf {
namespace {

// Stays in a core's cache between the read and the digest.
constexpr std::uint64_t piece_bytes = std::uint64_t{256} << 10;

}  // namespace

result<bool> file_hasher::advance(std::uint64_t bytes_max) {
  std::vector<std::byte> piece(std::min(piece_bytes, bytes_ - done_));
  for (const auto until = done_ + std::min(bytes_max, bytes_ - done_); done_ < until;) {
    const auto next = std::span(piece).first(std::min<std::uint64_t>(piece.size(), until - done_));
    if (auto read = file_.read(done_, next); !read) return read.error();
    digest_.add(next);
    done_ += next.size();
  }
  return done_ == bytes_;
}

}  // namespace tandem::shelf
