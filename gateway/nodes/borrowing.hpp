// Models and checkpoints of a head elsewhere: fetched into this machine's cache by whichever
// process owns devices.
#pragma once

#include "actors/borrower.hpp"
#include "gateway/nodes/actor_house.hpp"
#include "runtime/settings.hpp"

#include <cstdint>

namespace tandem::gateway {

inline actors::borrower_actor house_borrower(actor_house& house, std::uint64_t cache_bytes) {
  actors::borrower_options options;
  options.folder = tandem_home() / "cache" / "models";
  options.bytes_max = cache_bytes;
  // It reads, writes and hashes files: on a thread of its own.
  return house.house(house.system().spawn<caf::detached>(actors::borrower, std::move(options)));
}

}  // namespace tandem::gateway
