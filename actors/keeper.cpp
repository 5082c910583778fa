#include "actors/keeper.hpp"

#include "actors/fault.hpp"

#include <utility>

namespace tandem::actors {
namespace {

using self_pointer = caf::stateful_actor<keeper_state>*;

void start(self_pointer self) {
  auto& state = self->state;
  state.started_again = true;
  state.coordinator = self->spawn<caf::monitored>(coordinator, state.options.coordinator);
  state.started = self->clock().now();
  for (const auto& who : state.told) self->send(who, coordinator_changed{state.coordinator});
}

void coordinator_died(self_pointer self, const caf::error& why) {
  auto& state = self->state;
  state.coordinator = nullptr;
  const auto pause = state.pace.died(self->clock().now() - state.started);
  if (!pause) {
    log_error("the coordinator died {} times in a row and stays down: {}",
              state.pace.restarts() + 1, from_caf(why).detail);
    return self->quit(why);
  }
  log_error("the coordinator died: {}; starting it again in {} ms ({} of {})", from_caf(why).detail,
            pause->count(), state.pace.restarts(), state.pace.restarts_max());
  self->delayed_send(self, *pause, start_coordinator{});
}

}  // namespace

caf::behavior keeper(self_pointer self, keeper_options options, coordinator_actor first) {
  keep_exception_text(self);
  auto& state = self->state;
  state.options = std::move(options);
  state.pace = restart_pace(state.options.restarts_max, state.options.first_pause);
  state.coordinator = std::move(first);
  state.started = self->clock().now();
  self->monitor(state.coordinator);
  self->set_down_handler([=](const caf::down_msg& down) {
    auto& now = self->state;
    if (now.coordinator && now.coordinator.address() == down.source)
      return coordinator_died(self, down.reason);
    std::erase_if(now.told, [&](const auto& who) { return who.address() == down.source; });
  });
  self->set_exit_handler([=](const caf::exit_msg& end) {
    if (self->state.coordinator) self->send_exit(self->state.coordinator, end.reason);
    self->quit(end.reason);
  });
  return {
      [=](const keep_told& order) {
        self->monitor(order.who);
        self->state.told.push_back(order.who);
        // It may have been made with a coordinator that is gone by now.
        if ((self->state.started_again || order.knows_none) && self->state.coordinator)
          self->send(order.who, coordinator_changed{self->state.coordinator});
      },
      [=](start_coordinator) {
        if (!self->state.coordinator) start(self);
      },
  };
}

}  // namespace tandem::actors
