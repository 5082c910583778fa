// The courier: one for each job that a device of a group apart has open. It moves ranges of that
// device's training memory from and to other couriers beside whatever the device runs; the device
// itself never waits for it. Which ranges may be moved when is the train coordinator's order of
// things (runtime/train/group_layout.hpp). It ends with its device, or when the job leaves.
#pragma once

#include "actors/tensor_ref.hpp"
#include "actors/train_inspect.hpp"
#include "runtime/train/trainer.hpp"

#include <caf/all.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace tandem::actors {

// Moved at once, and how many of these one courier has on their way.
inline constexpr std::size_t moved_bytes_max = std::size_t{8} << 20;
inline constexpr std::size_t moved_at_once = 4;

struct fetch_range;
struct store_range;
struct bring_ranges;
struct take_ranges;
struct keep_ranges;
struct ranges_moved;
using courier_actor = caf::typed_actor<caf::replies_to<fetch_range>::with<tensor_ref>,
                                       caf::replies_to<store_range>::with<ranges_moved>,
                                       caf::replies_to<bring_ranges>::with<ranges_moved>,
                                       caf::replies_to<take_ranges>::with<ranges_moved>,
                                       caf::replies_to<keep_ranges>::with<ranges_moved>>;

// courier (or clerk) to courier: what lies there.
struct fetch_range {
  train::memory_range what;
};
// courier to courier: from now on this lies there.
struct store_range {
  train::memory_range what;
  tensor_ref bytes;
};
// train coordinator to the courier of the device that is to do an order of `home`: make room and
// bring what it needs. `group` in rank order, as below. Answered when all of it lies there.
struct bring_ranges {
  train::order_kind kind = train::order_kind::accumulate;
  int home = 0;
  std::vector<train::memory_range> what;
  std::vector<courier_actor> group;
};
// train coordinator to the courier of the device that has done an order: take this home. Answered
// when all of it is there.
struct take_ranges {
  std::vector<train::memory_range> what;
  std::vector<courier_actor> group;
};

// train coordinator to the courier of a buddy, at rank `buddy`: bring these of another's shard and
// keep them (group_layout.hpp), beside the ranges of orders. Answered when all of it lies there.
struct keep_ranges {
  int buddy = 0;
  std::vector<train::memory_range> what;
  std::vector<courier_actor> group;
};

struct ranges_moved {
  std::uint64_t bytes = 0;
};

struct courier_state {
  std::weak_ptr<train::trainer_memory> memory;  // gone with the job
  bool on_errand = false;                       // of an order: one at a time
  bool keeping = false;                         // likewise, of a copy

  static inline const char* name = "courier";
};

// Ends when `device` does, which may have died before the courier first runs.
courier_actor::behavior_type courier(courier_actor::stateful_pointer<courier_state> self,
                                     const std::shared_ptr<train::trainer_memory>& memory,
                                     const caf::strong_actor_ptr& device);

// --- inspection ---------------------------------------------------------------------------------

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, fetch_range& x) {
  return f(caf::meta::type_name("fetch_range"), x.what);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, store_range& x) {
  return f(caf::meta::type_name("store_range"), x.what, x.bytes);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, bring_ranges& x) {
  return f(caf::meta::type_name("bring_ranges"), x.kind, x.home, x.what, x.group);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, ranges_moved& x) {
  return f(caf::meta::type_name("ranges_moved"), x.bytes);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, take_ranges& x) {
  return f(caf::meta::type_name("take_ranges"), x.what, x.group);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, keep_ranges& x) {
  return f(caf::meta::type_name("keep_ranges"), x.buddy, x.what, x.group);
}

}  // namespace tandem::actors
