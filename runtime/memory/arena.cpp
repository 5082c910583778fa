#include "runtime/memory/arena.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

namespace tandem::memory {

namespace {

constexpr std::size_t huge_page = 2 * 1024 * 1024;

// Anonymous pages: zeroed, and taken from the machine only when first touched. Large ranges begin
// on a huge page's boundary, or the kernel could not use huge pages at their edges. Empty: no.
std::span<std::byte> map_pages(std::size_t bytes) {
  const std::size_t slack = bytes >= huge_page ? huge_page : 0;
  if (bytes + slack < bytes) return {};
  void* const start =
      ::mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) return {};
  auto* const first = static_cast<std::byte*>(start);
  if (slack == 0) return {first, bytes};
  const auto address = reinterpret_cast<std::uintptr_t>(start);
  const std::size_t skipped = (huge_page - address % huge_page) % huge_page;
  const std::size_t page = 4096;
  const std::size_t kept = (bytes + page - 1) / page * page;
  if (skipped > 0) ::munmap(first, skipped);
  if (skipped + kept < bytes + slack)
    ::munmap(first + skipped + kept, bytes + slack - skipped - kept);
  ::madvise(first + skipped, kept, MADV_HUGEPAGE);  // advice only
  return {first + skipped, bytes};
}

}  // namespace

result<arena> arena::reserve(ledger& book, owner who, std::size_t bytes, std::string_view what) {
  arena reserved;
  if (bytes == 0) return reserved;
  if (auto booked = book.reserve(who, bytes, what); !booked) return booked.error();
  const auto pages = map_pages(bytes);
  if (pages.empty()) {
    const int cause = errno;
    book.release(who, bytes);
    return error{
        errc::no_memory,
        fmt::format("{} wants {} bytes, the system said: {}", what, bytes, std::strerror(cause)),
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
  ::munmap(bytes_.data(), bytes_.size());
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
