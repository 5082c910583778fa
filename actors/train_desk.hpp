// The desk: takes up what the store says is to be done, one job at a time in order of creation, and
// after a restart brings the models that were published before back to serving.
#pragma once

#include "actors/train_clerk.hpp"
#include "actors/train_coordinator.hpp"

#include <memory>
#include <string>
#include <vector>

namespace tandem::actors {

struct train_desk_state {
  std::shared_ptr<const train_context> context;
  coordinator_actor coordinator;
  serve_coordinator_actor serve_coordinator;
  std::string running;  // the job under way; empty: none
  train_coordinator_actor job;
  bool brought_back = false;  // models that were published before
  bool looks_again = false;   // at a store that was silent: job_changed of no job is on its way
  bool parking = false;
  std::vector<caf::typed_response_promise<jobs_parked>> parked;

  static inline const char* name = "train_desk";
};

train_desk_actor::behavior_type train_desk(
    train_desk_actor::stateful_pointer<train_desk_state> self,
    std::shared_ptr<const train_context> context, coordinator_actor coordinator,
    serve_coordinator_actor serve_coordinator);

}  // namespace tandem::actors
