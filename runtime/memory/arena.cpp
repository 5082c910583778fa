#include "runtime/memory/arena.hpp"

#include <fmt/format.h>

#include <bit>
#include <string>
#include <utility>

namespace tandem::memory {

result<arena> arena::reserve(ledger& book, owner who, std::size_t bytes, std::string_view what) {
  arena reserved;
  if (bytes == 0) return reserved;
  if (auto booked = book.reserve(who, bytes, what); !booked) return booked.error();
  std::string why;
  const auto pages = book.source_of(who).map(bytes, why);
  if (pages.empty()) {
    book.release(who, bytes);
    return error{errc::no_memory,
                 fmt::format("{} wants {} bytes, the system said: {}", what, bytes, why),
                 {}};
  }
  reserved.book_ = &book;
  reserved.who_ = who;
  reserved.bytes_ = pages;
  return reserved;
}

arena::arena(arena&& other) noexcept
    : book_(std::exchange(other.book_, nullptr)),
      who_(other.who_),
      bytes_(std::exchange(other.bytes_, {})),
      used_(std::exchange(other.used_, 0)) {}

arena& arena::operator=(arena&& other) noexcept {
  std::swap(book_, other.book_);
  std::swap(who_, other.who_);
  std::swap(bytes_, other.bytes_);
  std::swap(used_, other.used_);
  return *this;
}

arena::~arena() {
  if (bytes_.empty()) return;
  book_->source_of(who_).unmap(bytes_);
  book_->release(who_, bytes_.size());
}

std::span<std::byte> arena::take(std::size_t size, std::size_t alignment) {
  ensure(std::has_single_bit(alignment) && alignment <= 4096, "arena alignment");
  const std::size_t start = (used_ + alignment - 1) / alignment * alignment;
  ensure(start <= bytes_.size() && size <= bytes_.size() - start, "the arena has no room left");
  used_ = start + size;
  return bytes_.subspan(start, size);
}

}  // namespace tandem::memory
