#include "actors/node.hpp"

#include "actors/fault.hpp"
#include "actors/gpu.hpp"

#include <algorithm>
#include <utility>

namespace tandem::actors {
namespace {

using self_pointer = node_actor::stateful_pointer<node_state>;

void restart_later(self_pointer self, node_state::watched& device, const error& why) {
  const auto& options = self->state.options;
  device.actor = nullptr;
  device.process.reset();
  const auto pause = device.pace.died(self->clock().now() - device.started);
  if (!pause) {
    log_error("device {} died {} times in a row and stays down: {}", device.spec.name,
              device.pace.restarts() + 1, why.detail);
    if (options.gave_up) options.gave_up(device.spec.name, why);
    return;
  }
  log_error("device {} died: {}; starting it again in {} ms ({} of {})", device.spec.name,
            why.detail, pause->count(), device.pace.restarts(), device.pace.restarts_max());
  self->delayed_send(self, *pause, start_device{device.spec.name});
}

void tell_of(self_pointer self, const node_state::watched& device) {
  if (self->state.coordinator && device.actor)
    self->send(self->state.coordinator, device_up{device.spec.name, device.actor});
}

void start_process(self_pointer self, node_state::watched& device) {
  const auto me = caf::actor_cast<caf::actor>(node_actor(self));
  auto started = self->state.options.start_worker(
      device.spec, [me, name = device.spec.name](std::uint64_t process, std::string how) {
        caf::anon_send(me, worker_ended{name, process, std::move(how)});
      });
  device.started = self->clock().now();
  if (!started) return restart_later(self, device, started.error());
  device.process = *std::move(started);
  device.life = device.process->process_id();
}

void start(self_pointer self, node_state::watched& device) {
  auto& options = self->state.options;
  if (options.start_worker) return start_process(self, device);
  auto made = options.make(device.spec);
  device.actor = options.own_threads ? self->spawn<caf::detached + caf::monitored>(
                                           gpu_elsewhere, std::move(made), options.borrower)
                                     : self->spawn<caf::monitored>(gpu, std::move(made));
  device.started = self->clock().now();
  tell_of(self, device);
}

void end_all(self_pointer self, const caf::error& why) {
  auto& devices = self->state.devices;
  for (auto& [name, device] : devices) {
    if (device.actor) self->send_exit(device.actor, why);
    if (device.process) device.process->ask_to_end();
  }
  for (auto& [name, device] : devices) device.process.reset();
}

void end_if_alone(self_pointer self) {
  const auto& devices = self->state.devices;
  if (std::ranges::none_of(devices, [](const auto& one) { return bool(one.second.actor); }))
    self->quit(*self->state.ends);
}

}  // namespace

node_actor::behavior_type node(self_pointer self, node_options options,
                               coordinator_actor coordinator) {
  keep_exception_text(self);
  auto& state = self->state;
  state.options = std::move(options);
  state.coordinator = std::move(coordinator);
  self->set_down_handler([=](const caf::down_msg& down) {
    for (auto& [name, device] : self->state.devices) {
      if (!device.actor || device.actor.address() != down.source) continue;
      if (!self->state.ends) return restart_later(self, device, from_caf(down.reason));
      device.actor = nullptr;
      return end_if_alone(self);
    }
  });
  self->set_exit_handler([=](const caf::exit_msg& end) {
    self->state.ends = end.reason;
    end_all(self, end.reason);
    end_if_alone(self);
  });
  for (const auto& spec : state.options.devices) {
    auto& device = state.devices[spec.name];
    device.spec = spec;
    device.pace = restart_pace(state.options.restarts_max, state.options.first_pause);
    start(self, device);
  }
  return {
      [=](const start_device& order) {
        if (self->state.ends) return;
        auto it = self->state.devices.find(order.name);
        if (it != self->state.devices.end() && !it->second.actor && !it->second.process)
          start(self, it->second);
      },
      [=](const worker_ended& fact) {
        auto it = self->state.devices.find(fact.name);
        if (self->state.ends || it == self->state.devices.end() || it->second.life != fact.life)
          return;
        it->second.life = 0;
        if (self->state.coordinator)
          self->send(self->state.coordinator, device_ended{fact.name, fact.how});
        restart_later(self, it->second, {errc::unavailable, fact.how, ""});
      },
      [=](const coordinator_changed& fact) {
        if (self->state.ends) return;
        self->state.coordinator = fact.now;
        for (const auto& [name, device] : self->state.devices) tell_of(self, device);
      },
  };
}

}  // namespace tandem::actors
