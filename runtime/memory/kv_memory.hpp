// The keys and values that lie in one device's memory, as another device of this process, or of
// another process of this machine, may read them: a sequence that changes devices takes its blocks
// along instead of being computed again.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/memory/shared_memory.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace tandem::memory {

struct kv_memory {
  std::shared_ptr<const void> keeps;  // what the bytes lie in
  std::span<const std::byte> bytes;   // empty: in another process
  std::size_t block_bytes = 0;        // over all layers
  std::string layout;                 // backend and format: equal ones have equal blocks
  std::optional<shared_place> place;  // where other processes find it; none: nowhere

  bool is_here() const { return !bytes.empty(); }
  std::int64_t block_count() const {
    const std::size_t all = is_here() || !place ? bytes.size() : place->bytes;
    return static_cast<std::int64_t>(block_bytes == 0 ? 0 : all / block_bytes);
  }
  std::span<const std::byte> block(std::int64_t index) const {
    return bytes.subspan(static_cast<std::size_t>(index) * block_bytes, block_bytes);
  }
  // Can either one's device copy the other's blocks?
  bool fits(const kv_memory& other) const {
    const bool same_process = is_here() && other.is_here();
    const bool same_machine = place && other.place && place->machine == other.place->machine;
    return block_bytes == other.block_bytes && layout == other.layout &&
           (same_process || same_machine);
  }
};

// The same blocks, of another process, to be read here. unavailable: its process is gone.
inline result<std::shared_ptr<const kv_memory>> brought_here(const kv_memory& there) {
  if (!there.place) return error{errc::unavailable, "keys and values lie in another process", ""};
  auto view = shared_view::open(*there.place);
  if (!view) return view.error();
  auto here = std::make_shared<kv_memory>(there);
  auto held = std::make_shared<const shared_view>(*std::move(view));
  here->bytes = held->bytes();
  here->keeps = std::move(held);
  return std::shared_ptr<const kv_memory>(std::move(here));
}

}  // namespace tandem::memory
