// The keeper: watches the coordinator and starts it again when it dies. What it knew is in the book
// (lease_store); those who speak to it are told who it is now and register again.
#pragma once

#include "actors/coordinator.hpp"
#include "runtime/restart_pace.hpp"

#include <chrono>
#include <vector>

namespace tandem::actors {

// To the keeper: this one (it takes coordinator_changed) is told of every new coordinator; of the
// present one too when it knows none yet.
struct keep_told {
  caf::actor who;
  bool knows_none = false;
};
// The keeper to itself: it has been quiet long enough, start the next one.
struct start_coordinator {};

struct keeper_options {
  coordinator_options coordinator;
  int restarts_max = 8;  // soon after each other; then the keeper ends, with why
  std::chrono::milliseconds first_pause{10};
};

struct keeper_state {
  keeper_options options;
  coordinator_actor coordinator;
  std::vector<caf::actor> told;
  restart_pace pace{0};
  bool started_again = false;
  caf::actor_clock::time_point started{};

  static inline const char* name = "keeper";
};

// Takes over the first coordinator, which the others were made with. Ends it when it is ended.
caf::behavior keeper(caf::stateful_actor<keeper_state>* self, keeper_options options,
                     coordinator_actor first);

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, keep_told& x) {
  return f(caf::meta::type_name("keep_told"), x.who, x.knows_none);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, start_coordinator&) {
  return f(caf::meta::type_name("start_coordinator"));
}

}  // namespace tandem::actors
