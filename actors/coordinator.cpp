#include "actors/coordinator.hpp"

#include "actors/fault.hpp"

#include <chrono>

namespace tandem::actors {
namespace {

using self_pointer = coordinator_actor::stateful_pointer<coordinator_state>;

constexpr auto lease_deadline = std::chrono::seconds(10);

// The device hears of its lease first, its holder when the device has agreed.
void lend(self_pointer self, const std::string& device) {
  auto& state = self->state;
  auto& member = state.members.at(device);
  auto lent = state.book.lend(device, lease::role::serve, state.serve_holder);
  ensure(lent.has_value(), "a member without a page in the book");
  member.holder = state.serve_coordinator;
  self->request(member.device, lease_deadline, take_lease{*lent})
      .then(
          [=, handle = member.device, lent = *lent](serve::device_facts& facts) {
            auto it = self->state.members.find(device);
            const auto* now = self->state.book.find(device);
            if (it == self->state.members.end() || !now || now->at != lent.at) return;
            self->send(it->second.holder, lease_granted{lent, std::move(facts), handle});
          },
          [=](const caf::error& why) {
            log_warning("device {} did not take its lease: {}", device, from_caf(why).detail);
          });
}

void lend_idle(self_pointer self) {
  if (!self->state.serve_coordinator) return;
  for (const auto& device : self->state.book.idle_devices()) lend(self, device);
}

void forget(self_pointer self, const caf::actor_addr& source) {
  auto& state = self->state;
  for (auto it = state.members.begin(); it != state.members.end(); ++it) {
    if (it->second.device.address() != source) continue;
    if (const auto* was = state.book.find(it->first); was && it->second.holder)
      self->send(it->second.holder, lease_lost{*was});
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
        self->state.members[fact.name] = {fact.device, {}};
        lend_idle(self);
      },
      [=](want_devices& order) {
        self->state.serve_holder = order.holder;
        self->state.serve_coordinator = order.to;
        lend_idle(self);
      },
      [=](const share_devices& order) {
        std::vector<shared_device> shared;
        for (const auto& [name, member] : self->state.members)
          if (const auto lent = self->state.book.share(name, order.guest))
            shared.push_back({*lent, member.device});
        return shared;
      },
      [=](const return_devices& order) {
        for (const auto& [name, member] : self->state.members)
          self->state.book.end_share(name, order.guest);
      },
      [=](list_leases) { return self->state.book.leases(); },
  };
}

}  // namespace tandem::actors
