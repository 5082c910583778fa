#include "runtime/memory/memory_source.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>

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

class host_pages final : public memory_source {
 public:
  std::span<std::byte> map(std::size_t bytes, std::string& why) override {
    const auto pages = map_pages(bytes);
    if (pages.empty()) why = std::strerror(errno);
    return pages;
  }
  void unmap(std::span<std::byte> memory) override { ::munmap(memory.data(), memory.size()); }
  bool host() const override { return true; }
  void read(std::span<const std::byte> memory, std::byte* host) override {
    std::copy(memory.begin(), memory.end(), host);
  }
  void write(std::span<const std::byte> host, std::byte* memory) override {
    std::copy(host.begin(), host.end(), memory);
  }
};

}  // namespace

std::shared_ptr<memory_source> host_memory() {
  static const auto pages = std::make_shared<host_pages>();
  return pages;
}

}  // namespace tandem::memory
