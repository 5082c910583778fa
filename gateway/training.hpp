// Fine-tuning as the platform wires it: the store, the desk that takes jobs up, and the watch that
// tells the desk what the doors wrote.
#pragma once

#include "actors/train_desk.hpp"
#include "gateway/engine.hpp"
#include "gateway/process_signals.hpp"
#include "runtime/settings.hpp"
#include "runtime/store/store.hpp"

#include <chrono>
#include <memory>

namespace tandem::gateway {

class training {
 public:
  training(caf::actor_system& system, std::shared_ptr<store::store> store);
  // Stops watching; the desk ends with its process's other actors.
  ~training();

  // Once the model is served: takes unfinished jobs up and brings published versions back.
  actors::train_desk_actor open_desk(const settings& configuration, const served_model& model,
                                     const model::model_config& config,
                                     actors::coordinator_actor coordinator,
                                     actors::serve_coordinator_actor serve_coordinator);
  // The running job writes a checkpoint and leaves its devices; false when it took longer.
  bool park(std::chrono::milliseconds patience);

 private:
  caf::actor_system& system_;
  std::shared_ptr<store::store> store_;
  actors::train_desk_actor desk_;
  int watch_ = 0;
};

}  // namespace tandem::gateway
