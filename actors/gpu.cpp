#include "actors/gpu.hpp"

#include "actors/fault.hpp"
#include "runtime/log.hpp"

namespace tandem::actors {
namespace {

using self_pointer = gpu_actor::stateful_pointer<gpu_state>;

void give_up(self_pointer self, const error& why) {
  auto& state = self->state;
  state.device->reset();
  if (!state.running) return;
  state.running = false;
  state.answer.deliver(to_caf(why));
}

// Runs pieces until the step is done or somebody wrote to us.
void run_pieces(self_pointer self) {
  auto& state = self->state;
  while (state.device->advance()) {
    if (self->mailbox().empty()) continue;
    self->send(self, next_piece{});
    return;
  }
  state.running = false;
  state.answer.deliver(state.device->finish());
}

}  // namespace

gpu_actor::behavior_type gpu(self_pointer self, std::unique_ptr<serve::device> device) {
  keep_exception_text(self);
  self->state.device = std::move(device);
  self->state.device->attach_calling_thread();

  return {
      [=](take_lease& order) -> caf::result<serve::device_facts> {
        auto& state = self->state;
        if (auto fresh = state.guard.admit(order.now.at); !fresh) return to_caf(fresh.error());
        give_up(self, {errc::conflict, "the device went to " + order.now.holder, ""});
        return state.device->facts();
      },
      [=](load_model& order) -> caf::result<serve::loaded_model> {
        auto& state = self->state;
        if (auto fresh = state.guard.admit(order.at); !fresh) return to_caf(fresh.error());
        give_up(self, {errc::conflict, "another model is loaded", ""});
        auto loaded = state.device->load(order.order);
        if (!loaded) return to_caf(loaded.error());
        return *std::move(loaded);
      },
      [=](run_step& order) -> caf::result<serve::step_result> {
        auto& state = self->state;
        if (auto fresh = state.guard.admit(order.at); !fresh) return to_caf(fresh.error());
        if (state.running) return to_caf({errc::conflict, "a step is in flight already", ""});
        if (auto begun = state.device->begin(std::move(order.plan)); !begun)
          return to_caf(begun.error());
        state.running = true;
        state.running_at = order.at;
        state.answer = self->make_response_promise<serve::step_result>();
        run_pieces(self);
        return state.answer;
      },
      [=](forget_sequences& order) -> caf::result<caf::unit_t> {
        auto& state = self->state;
        if (auto fresh = state.guard.admit(order.at); !fresh) return to_caf(fresh.error());
        give_up(self, {errc::cancelled, "the step was given up", ""});
        return caf::unit;
      },
      // Versions come and go between two pieces: a step in flight keeps what it began with.
      [=](add_version& order) -> caf::result<serve::device_facts> {
        auto& state = self->state;
        if (auto fresh = state.guard.admit(order.at); !fresh) return to_caf(fresh.error());
        auto added = state.device->add_variant(order.id, order.what);
        if (!added) return to_caf(added.error());
        return *std::move(added);
      },
      [=](const remove_version& order) -> caf::result<serve::device_facts> {
        auto& state = self->state;
        if (auto fresh = state.guard.admit(order.at); !fresh) return to_caf(fresh.error());
        state.device->remove_variant(order.id);
        return state.device->facts();
      },
      [=](const load_version& order) -> caf::result<serve::device_facts> {
        auto& state = self->state;
        if (auto fresh = state.guard.admit(order.at); !fresh) return to_caf(fresh.error());
        auto read = state.device->load_variant(order.checkpoint, order.version);
        if (!read) return to_caf(read.error());
        auto added = state.device->add_variant(order.id, *read);
        if (!added) return to_caf(added.error());
        return *std::move(added);
      },
      [=](next_piece) {
        if (self->state.running) run_pieces(self);
      },
  };
}

}  // namespace tandem::actors
