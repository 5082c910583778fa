#include "actors/node.hpp"

#include "actors/fault.hpp"
#include "actors/gpu.hpp"

#include <algorithm>

namespace tandem::actors {
namespace {

using self_pointer = node_actor::stateful_pointer<node_state>;

constexpr auto quiet_time = std::chrono::minutes(1);
constexpr int doublings_max = 6;  // of the pause, however many restarts are allowed

void start(self_pointer self, node_state::watched& device) {
  auto& options = self->state.options;
  auto made = options.make(device.spec);
  device.actor = options.own_threads
                     ? self->spawn<caf::detached + caf::monitored>(gpu, std::move(made))
                     : self->spawn<caf::monitored>(gpu, std::move(made));
  device.started = self->clock().now();
  self->send(self->state.coordinator, device_up{device.spec.name, device.actor});
}

void restart_later(self_pointer self, node_state::watched& device, const caf::error& why) {
  const auto& options = self->state.options;
  device.actor = nullptr;
  if (self->clock().now() - device.started > quiet_time) device.restarts = 0;
  if (device.restarts >= options.restarts_max) {
    log_error("device {} died {} times in a row and stays down: {}", device.spec.name,
              device.restarts + 1, from_caf(why).detail);
    return;
  }
  const auto pause = options.first_pause * (1 << std::min(device.restarts++, doublings_max));
  log_error("device {} died: {}; starting it again in {} ms ({} of {})", device.spec.name,
            from_caf(why).detail, pause.count(), device.restarts, options.restarts_max);
  self->delayed_send(self, pause, start_device{device.spec.name});
}

}  // namespace

node_actor::behavior_type node(self_pointer self, node_options options,
                               coordinator_actor coordinator) {
  keep_exception_text(self);
  auto& state = self->state;
  state.options = std::move(options);
  state.coordinator = std::move(coordinator);
  self->set_down_handler([=](const caf::down_msg& down) {
    for (auto& [name, device] : self->state.devices)
      if (device.actor && device.actor.address() == down.source)
        return restart_later(self, device, down.reason);
  });
  self->set_exit_handler([=](const caf::exit_msg& end) {
    for (auto& [name, device] : self->state.devices)
      if (device.actor) self->send_exit(device.actor, end.reason);
    self->quit(end.reason);
  });
  for (const auto& spec : state.options.devices) {
    auto& device = state.devices[spec.name];
    device.spec = spec;
    start(self, device);
  }
  return {
      [=](const start_device& order) {
        auto it = self->state.devices.find(order.name);
        if (it != self->state.devices.end() && !it->second.actor) start(self, it->second);
      },
      [=](const coordinator_changed& fact) {
        self->state.coordinator = fact.now;
        for (const auto& [name, device] : self->state.devices)
          if (device.actor) self->send(fact.now, device_up{name, device.actor});
      },
  };
}

}  // namespace tandem::actors
