// Who leads, decided from what the database said: no connection, no clock. One head leads a
// database at a time: it holds a lock of its session, and each taking of the lead counts an epoch
// up, which every write of the leader is checked against.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace tandem::store {

// What errors name whose head does not know whether it leads still.
inline constexpr const char* lead_unsure = "store.lead";

// What one look at the database gave.
struct leader_look {
  bool answered = false;   // false: no connection, and nothing else here counts
  bool locked = false;     // our session holds the lock
  std::int64_t epoch = 0;  // the newest; 0: nobody has led yet
  std::string leader;      // who took it, as it calls itself
  std::string since;       // and when
};

enum class lead_step : std::uint8_t {
  wait,      // nothing is known: ask again after a pause
  stand_by,  // another head leads
  take,      // nobody leads: count the epoch up and lead
  lead,      // we still do
  give_up    // another head took it from us: nothing may be written any more
};

// `led`: the epoch we took; 0: we never led.
lead_step next_step(std::int64_t led, const leader_look& seen);

// Before the next try after `failures` that came one after another: grows, and never beyond 1 s.
std::chrono::milliseconds pause_after(int failures);

// "HOST:PORT leads (epoch N)"
std::string told(const leader_look& seen);
// Why a head that led up to `led` may not write.
std::string told_to_former(std::int64_t led, const leader_look& seen);

}  // namespace tandem::store
