// The parts of a GPU actor that call each other; internal to actors/gpu*.cpp. Pieces (gpu.cpp):
// what runs next. Errands (gpu_errands.cpp): what takes long and is no step.
#pragma once

#include "actors/gpu.hpp"

#include <string>

namespace tandem::actors::gpu_work {

using self_pointer = gpu_actor::stateful_pointer<gpu_state>;

// --- pieces ------------------------------------------------------------------------------------
// Runs pieces until nothing is in flight or somebody wrote to us.
void run_pieces(self_pointer self);
// Every sequence is forgotten, whether a step is in flight or not.
void give_up_step(self_pointer self, const error& why);
void give_up_training(self_pointer self, const std::string& job, const error& why);
void dismiss_courier(self_pointer self);

// --- errands -----------------------------------------------------------------------------------
// Each with the files it names, wherever these are.
caf::result<serve::loaded_model> get_and_load(self_pointer self, load_model& order);
caf::result<serve::device_facts> get_and_load(self_pointer self, const load_version& order);
caf::result<training_opened> get_and_open(self_pointer self, open_training& order);
// Whatever was under way for these is given up, and answered.
void remove(self_pointer self, serve::variant_id id);
void close(self_pointer self, const std::string& job);
// A piece of the first errand.
void run_errand(self_pointer self);

}  // namespace tandem::actors::gpu_work
