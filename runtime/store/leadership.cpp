#include "runtime/store/leadership.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::store {

lead_step next_step(std::int64_t led, const leader_look& seen) {
  if (!seen.answered) return lead_step::wait;
  if (led == 0) return seen.locked ? lead_step::take : lead_step::stand_by;
  if (seen.epoch != led) return lead_step::give_up;
  // The lock may be held by an older session of ours that the server has not missed yet, or by one
  // who is about to count up: the epoch will tell.
  return seen.locked ? lead_step::lead : lead_step::wait;
}

std::chrono::milliseconds pause_after(int failures) {
  constexpr int first_ms = 50, most_ms = 1000, doublings = 5;
  return std::chrono::milliseconds(
      std::min(most_ms, first_ms << std::clamp(failures - 1, 0, doublings)));
}

std::string told(const leader_look& seen) {
  return seen.leader.empty() ? std::string("another head is about to lead")
                             : fmt::format("{} leads (epoch {})", seen.leader, seen.epoch);
}

std::string told_to_former(std::int64_t led, const leader_look& seen) {
  return fmt::format(
      "another head leads since {}: {} (epoch {}, ours was {}); this one writes nothing more: "
      "start "
      "it again and it stands by",
      seen.since, seen.leader, seen.epoch, led);
}

}  // namespace tandem::store
