#include "actors/gpu.hpp"

#include "actors/fault.hpp"
#include "runtime/log.hpp"

#include <utility>

namespace tandem::actors {
namespace {

using self_pointer = gpu_actor::stateful_pointer<gpu_state>;

void give_up_step(self_pointer self, const error& why) {
  auto& state = self->state;
  state.device->reset();
  if (std::exchange(state.running, false)) state.answer.deliver(to_caf(why));
}

void give_up_training(self_pointer self, const error& why) {
  auto& state = self->state;
  if (std::exchange(state.training, false)) state.training_answer.deliver(to_caf(why));
}

// Runs pieces until nothing is in flight or somebody wrote to us.
void run_pieces(self_pointer self) {
  auto& state = self->state;
  while (state.running || (state.training && lease::trains(state.guard.now().held_as))) {
    if (state.running) {
      if (!state.device->advance()) {
        state.running = false;
        state.answer.deliver(state.device->finish());
      }
    } else if (!state.device->advance_training()) {
      state.training = false;
      auto outcome = state.device->finish_training();
      if (outcome)
        state.training_answer.deliver(*std::move(outcome));
      else
        state.training_answer.deliver(to_caf(outcome.error()));
    }
    if (self->mailbox().empty()) continue;
    if (!std::exchange(state.piece_due, true)) self->send(self, next_piece{});
    return;
  }
}

template <class T>
caf::result<T> answer_with(result<T> made) {
  if (!made) return to_caf(made.error());
  return *std::move(made);
}

}  // namespace

gpu_actor::behavior_type gpu(self_pointer self, std::unique_ptr<serve::device> device) {
  keep_exception_text(self);
  self->state.device = std::move(device);
  self->state.device->attach_calling_thread();

  return {
      [=](take_lease& order) -> caf::result<lease_taken> {
        auto& state = self->state;
        const auto before = state.guard.now();
        if (auto fresh = state.guard.take(order.now); !fresh) return to_caf(fresh.error());
        if (order.now.serve_since != before.serve_since)
          give_up_step(self, {errc::conflict, "the device went to " + order.now.holder, ""});
        run_pieces(self);
        return lease_taken{state.device->facts(), before};
      },
      [=](load_model& order) -> caf::result<serve::loaded_model> {
        if (auto fresh = self->state.guard.admit_serving(order.at); !fresh)
          return to_caf(fresh.error());
        give_up_step(self, {errc::conflict, "another model is loaded", ""});
        return answer_with(self->state.device->load(order.order));
      },
      [=](run_step& order) -> caf::result<serve::step_result> {
        auto& state = self->state;
        if (auto fresh = self->state.guard.admit_serving(order.at); !fresh)
          return to_caf(fresh.error());
        if (state.running) return to_caf({errc::conflict, "a step is in flight already", ""});
        if (auto begun = state.device->begin(std::move(order.plan)); !begun)
          return to_caf(begun.error());
        state.running = true;
        state.running_at = order.at;
        state.answer = self->make_response_promise<serve::step_result>();
        auto answer = state.answer;
        run_pieces(self);
        return answer;
      },
      [=](forget_sequences& order) -> caf::result<caf::unit_t> {
        if (auto fresh = self->state.guard.admit_serving(order.at); !fresh)
          return to_caf(fresh.error());
        give_up_step(self, {errc::cancelled, "the step was given up", ""});
        return caf::unit;
      },
      // Versions come and go between two pieces: a step in flight keeps what it began with.
      [=](add_version& order) -> caf::result<serve::device_facts> {
        if (auto fresh = self->state.guard.admit_serving(order.at); !fresh)
          return to_caf(fresh.error());
        return answer_with(self->state.device->add_variant(order.id, order.what));
      },
      [=](const remove_version& order) -> caf::result<serve::device_facts> {
        if (auto fresh = self->state.guard.admit_serving(order.at); !fresh)
          return to_caf(fresh.error());
        self->state.device->remove_variant(order.id);
        return self->state.device->facts();
      },
      [=](const load_version& order) -> caf::result<serve::device_facts> {
        auto& state = self->state;
        if (auto fresh = self->state.guard.admit_serving(order.at); !fresh)
          return to_caf(fresh.error());
        auto loaded = state.device->load_variant(order.checkpoint, order.version);
        if (!loaded) return to_caf(loaded.error());
        return answer_with(state.device->add_variant(order.id, *loaded));
      },
      [=](open_training& order) -> caf::result<train::opened> {
        auto& state = self->state;
        if (auto fresh = self->state.guard.admit_residency(order.at); !fresh)
          return to_caf(fresh.error());
        if (state.training)
          return to_caf({errc::conflict, "an order of another job is in flight", ""});
        return answer_with(state.device->open_training(order.order));
      },
      [=](join_training& order) -> caf::result<void> {
        if (auto fresh = self->state.guard.admit_residency(order.at); !fresh)
          return to_caf(fresh.error());
        self->state.device->join_training(order.job, std::move(order.group));
        return caf::unit;
      },
      [=](run_training& order) -> caf::result<train::outcome> {
        auto& state = self->state;
        if (auto fresh = self->state.guard.admit_training(order.at); !fresh)
          return to_caf(fresh.error());
        if (state.training) return to_caf({errc::conflict, "an order is in flight already", ""});
        if (auto begun = state.device->begin_training(std::move(order.what)); !begun)
          return to_caf(begun.error());
        state.training = true;
        state.training_answer = self->make_response_promise<train::outcome>();
        auto answer = state.training_answer;
        run_pieces(self);
        return answer;
      },
      [=](const drop_training& order) -> caf::result<void> {
        auto& state = self->state;
        if (auto fresh = state.guard.admit_residency(order.at); !fresh)
          return to_caf(fresh.error());
        if (state.training) state.device->drop_training();
        give_up_training(self, {errc::cancelled, "the order was dropped", ""});
        return caf::unit;
      },
      [=](const close_training& order) -> caf::result<void> {
        if (auto fresh = self->state.guard.admit_residency(order.at); !fresh)
          return to_caf(fresh.error());
        give_up_training(self, {errc::cancelled, "the job left the device", ""});
        self->state.device->close_training(order.job);
        return caf::unit;
      },
      [=](next_piece) {
        self->state.piece_due = false;
        run_pieces(self);
      },
  };
}

}  // namespace tandem::actors
