// How long training may hold up the next step on a shared device, while more steps are to come:
// what the target between two tokens leaves beside a step, and nothing while somebody waits for a
// first token. A pure function.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

namespace tandem::serve {

struct gap_view {
  bool reads_prompts = false;  // after this step somebody still waits for a first token
  std::int64_t step_ns = 0;    // what the steps take that are under way
  int itl_target_ms = 0;
};

// Nanoseconds.
inline std::int64_t training_gap_ns(const gap_view& view) {
  constexpr double share_of_target = 0.8;  // below what the policy takes for a threat
  if (view.reads_prompts) return 0;
  const double allowed = share_of_target * 1e6 * view.itl_target_ms;
  return std::max<std::int64_t>(0, static_cast<std::int64_t>(allowed) - view.step_ns);
}

inline constexpr std::int64_t any_gap_ns = std::numeric_limits<std::int64_t>::max();

}  // namespace tandem::serve
