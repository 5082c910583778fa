// The ledger: every byte of one device's memory by owner. It decides before allocation; nothing is
// allocated on a device outside it. Any thread may call it: whoever drops the last hold on
// published weights gives their memory back.
#pragma once

#include "runtime/memory/memory_source.hpp"
#include "runtime/result.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace tandem::memory {

enum class owner : std::uint8_t {
  weights,
  adapters,
  kv_blocks,
  activations,
  gradients,
  optimizer,
  workspace
};
inline constexpr std::size_t owner_count = 7;
std::string_view name_of(owner who);

class ledger {
 public:
  // `kv_source`: what KV blocks are made of; null: of the same as all else.
  explicit ledger(std::uint64_t capacity_bytes,
                  std::shared_ptr<memory_source> source = host_memory(),
                  std::shared_ptr<memory_source> kv_source = nullptr)
      : capacity_(capacity_bytes),
        source_(std::move(source)),
        kv_source_(kv_source ? std::move(kv_source) : source_) {}

  // Refuses with the numbers (wanted, free, capacity, who holds what) and the setting to change.
  result<void> reserve(owner who, std::uint64_t bytes, std::string_view what);
  void release(owner who, std::uint64_t bytes);

  // What arenas booked here are made of.
  memory_source& source() const { return *source_; }
  memory_source& source_of(owner who) const {
    return who == owner::kv_blocks ? *kv_source_ : *source_;
  }

  std::uint64_t capacity() const { return capacity_; }
  std::uint64_t used() const;
  std::uint64_t free() const { return capacity_ - used(); }
  std::uint64_t used_by(owner who) const;

 private:
  std::uint64_t sum() const;  // under the mutex

  std::uint64_t capacity_;
  std::shared_ptr<memory_source> source_;
  std::shared_ptr<memory_source> kv_source_;
  mutable std::mutex mutex_;
  std::array<std::uint64_t, owner_count> used_{};
};

}  // namespace tandem::memory
