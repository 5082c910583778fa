#include "runtime/memory/ledger.hpp"

#include <fmt/format.h>

#include <numeric>

namespace tandem::memory {

namespace {

std::string readable(std::uint64_t bytes) {
  if (bytes < 1024 * 1024) return fmt::format("{} B", bytes);
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1024.0 * 1024.0));
}

}  // namespace

std::string_view name_of(owner who) {
  constexpr std::array<std::string_view, owner_count> names{
      "weights", "adapters", "kv_blocks", "activations", "gradients", "optimizer", "workspace"};
  const auto index = static_cast<std::size_t>(who);
  ensure(index < owner_count, "an owner the ledger does not know");
  return names[index];
}

result<void> ledger::reserve(owner who, std::uint64_t bytes, std::string_view what) {
  const std::lock_guard lock(mutex_);
  const auto left = capacity_ - sum();
  if (bytes > left) {
    std::string holders;
    for (std::size_t i = 0; i < owner_count; ++i) {
      if (used_[i] == 0) continue;
      holders += fmt::format("{}{} {}", holders.empty() ? "" : ", ", name_of(static_cast<owner>(i)),
                             readable(used_[i]));
    }
    return error{errc::no_memory,
                 fmt::format("{} wants {}, {} of {} are free ({}); raise devices.memory_fraction, "
                             "lower model.kv_memory or model.context_length, or choose a smaller "
                             "model.format",
                             what, readable(bytes), readable(left), readable(capacity_),
                             holders.empty() ? "nothing held" : holders),
                 "devices.memory_fraction"};
  }
  used_[static_cast<std::size_t>(who)] += bytes;
  ensure(sum() <= capacity_, "the ledger gave out more than there is");
  return {};
}

void ledger::release(owner who, std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  auto& held = used_[static_cast<std::size_t>(who)];
  ensure(bytes <= held, "release of more bytes than this owner holds");
  held -= bytes;
}

std::uint64_t ledger::used() const {
  const std::lock_guard lock(mutex_);
  return sum();
}

std::uint64_t ledger::used_by(owner who) const {
  const std::lock_guard lock(mutex_);
  return used_[static_cast<std::size_t>(who)];
}

std::uint64_t ledger::sum() const {
  return std::accumulate(used_.begin(), used_.end(), std::uint64_t{0});
}

}  // namespace tandem::memory
