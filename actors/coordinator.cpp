#include "actors/coordinator.hpp"

#include "actors/fault.hpp"

#include <chrono>

namespace tandem::actors {
namespace {

using self_pointer = coordinator_actor::stateful_pointer<coordinator_state>;

constexpr auto lease_deadline = std::chrono::seconds(10);

// The device hears of its lease first, its holders when the device has agreed.
void lend(self_pointer self, const std::string& device, lease::role as) {
  auto& state = self->state;
  auto& member = state.members.at(device);
  auto lent = state.book.lend(device, as, state.serve_holder, state.job);
  ensure(lent.has_value(), "a member without a page in the book");
  self->request(member.device, lease_deadline, take_lease{*lent})
      .then(
          [=, handle = member.device, lent = *lent](lease_taken& taken) {
            auto& now = self->state;
            const auto* held = now.book.find(device);
            if (!held || held->at != lent.at) return;
            if (lent.serve_since == lent.at)
              self->send(now.serve_coordinator,
                         lease_granted{lent, std::move(taken.facts), handle});
            else
              self->send(now.serve_coordinator, lease_changed{lent});
            if (lent.train_since == lent.at)
              self->send(now.train_coordinator, training_granted{lent});
          },
          [=](const caf::error& why) {
            log_warning("device {} did not take its lease: {}", device, from_caf(why).detail);
          });
}

void lend_idle(self_pointer self) {
  if (!self->state.serve_coordinator) return;
  for (const auto& held : self->state.book.leases())
    if (held.held_as == lease::role::idle) lend(self, held.device, lease::role::serve);
}

void forget(self_pointer self, const caf::actor_addr& source) {
  auto& state = self->state;
  for (auto it = state.members.begin(); it != state.members.end(); ++it) {
    if (it->second.device.address() != source) continue;
    if (const auto* was = state.book.find(it->first); was && was->serve_since != 0)
      self->send(state.serve_coordinator, lease_lost{*was});
    state.book.remove(it->first);
    state.members.erase(it);
    return;
  }
}

}  // namespace

coordinator_actor::behavior_type coordinator(self_pointer self) {
  keep_exception_text(self);
  self->set_down_handler([=](const caf::down_msg& down) { forget(self, down.source); });
  return {
      [=](device_up& fact) {
        self->monitor(fact.device);
        self->state.book.add(fact.name);
        self->state.members[fact.name] = {fact.device};
        lend_idle(self);
      },
      [=](want_devices& order) {
        self->state.serve_holder = order.holder;
        self->state.serve_coordinator = order.to;
        lend_idle(self);
      },
      [=](const serve_load&) {},
      [=](const want_training& order) {
        auto& state = self->state;
        state.job = order.job;
        state.train_coordinator = order.to;
        std::vector<shared_device> shared;
        for (const auto& [name, member] : state.members)
          shared.push_back({*state.book.find(name), member.device});
        return shared;
      },
      [=](const job_resident& fact) {
        for (const auto& device : fact.devices)
          if (self->state.members.contains(device)) lend(self, device, lease::role::shared);
      },
      [=](const job_progress&) {},
      [=](const return_devices& order) {
        auto& state = self->state;
        for (const auto& held : state.book.leases())
          if (held.job() == order.job) lend(self, held.device, lease::role::serve);
      },
      [=](const work_began&) {},
      [=](const assign& order) -> caf::result<lease::lease> {
        return to_caf({errc::unsupported, "assign of " + order.device + " is not built yet", ""});
      },
      [=](const set_policy& order) { return order.to; },
      [=](list_leases) { return self->state.book.leases(); },
      [=](look_around) {},
  };
}

}  // namespace tandem::actors
