#include "actors/doorkeeper.hpp"

#include "actors/fault.hpp"

#include <utility>

namespace tandem::actors {

doorkeeper_actor::behavior_type doorkeeper(
    doorkeeper_actor::stateful_pointer<doorkeeper_state> self, std::function<door_terms()> terms,
    serve_coordinator_actor serve_coordinator) {
  keep_exception_text(self);
  self->state.terms = std::move(terms);
  self->state.serve_coordinator = std::move(serve_coordinator);
  return {
      [=](ask_terms) {
        auto told = self->state.terms();
        told.serve_coordinator = self->state.serve_coordinator;
        return told;
      },
      [=](serve_coordinator_changed& fact) { self->state.serve_coordinator = std::move(fact.now); },
  };
}

}  // namespace tandem::actors
