// The keys and values that lie in one device's memory, as another device of this process may read
// them: a sequence that changes devices takes its blocks along instead of being computed again.
#pragma once

#include "kernels/backend.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace tandem::memory {

struct kv_memory {
  std::shared_ptr<const void> keeps;  // what the bytes lie in
  std::span<const std::byte> bytes;
  std::size_t block_bytes = 0;  // over all layers
  std::string layout;           // backend and format: equal ones have equal blocks

  std::int64_t block_count() const {
    return static_cast<std::int64_t>(block_bytes == 0 ? 0 : bytes.size() / block_bytes);
  }
  std::span<const std::byte> block(std::int64_t index) const {
    return bytes.subspan(static_cast<std::size_t>(index) * block_bytes, block_bytes);
  }
  bool fits(const kv_memory& other) const {
    return block_bytes == other.block_bytes && layout == other.layout;
  }
};

}  // namespace tandem::memory
