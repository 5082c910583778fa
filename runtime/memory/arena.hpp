// One reservation of device memory at a fixed address, zeroed. Reserved in the ledger, and made of
// what that gives out, for as long as it lives.
#pragma once

#include "runtime/memory/ledger.hpp"
#include "runtime/result.hpp"

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

namespace tandem::memory {

class arena {
 public:
  arena() = default;
  // `book` must outlive the arena.
  static result<arena> reserve(ledger& book, owner who, std::size_t bytes, std::string_view what);
  arena(arena&& other) noexcept;
  arena& operator=(arena&& other) noexcept;
  ~arena();

  std::span<std::byte> bytes() const { return bytes_; }
  std::size_t used() const { return used_; }
  // The next `size` bytes, aligned; the arena must have room (ensure).
  std::span<std::byte> take(std::size_t size, std::size_t alignment = 64);

 private:
  ledger* book_ = nullptr;
  owner who_ = owner::weights;
  std::span<std::byte> bytes_;
  std::size_t used_ = 0;
};

}  // namespace tandem::memory
