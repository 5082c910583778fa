// The GPU actor: the one owner of a device. Runs steps and training orders as programs of pieces
// and looks at its mailbox between two of them; the mailbox is the preemption point. A step always
// goes first: a piece of training runs only while no step is in flight.
#pragma once

#include "actors/messages.hpp"
#include "runtime/serve/device.hpp"

#include <deque>
#include <memory>

namespace tandem::actors {

struct gpu_state {
  std::unique_ptr<serve::device> device;
  lease::lease_guard guard;
  bool running = false;  // a step is in flight
  lease::epoch running_at = 0;
  caf::typed_response_promise<serve::step_result> answer;
  bool training = false;   // an order of a job is in flight, at the same time as a step or not
  bool piece_due = false;  // next_piece is on its way to ourselves
  caf::typed_response_promise<train::outcome> training_answer;

  static inline const char* name = "gpu";
};

// Must be spawned detached where the device is real: its thread becomes the device's first.
gpu_actor::behavior_type gpu(gpu_actor::stateful_pointer<gpu_state> self,
                             std::unique_ptr<serve::device> device);

}  // namespace tandem::actors
