// What the files of the coordinator share: coordinator.cpp (who comes and goes),
// coordinator_book.cpp (what was there before it), coordinator_policy.cpp (what each device is
// wanted as), coordinator_moves.cpp (how it gets there), coordinator_report.cpp (what is told of
// it).
#pragma once

#include "actors/coordinator.hpp"

#include <chrono>
#include <cmath>
#include <string>
#include <string_view>

namespace tandem::actors::lending {

using self_pointer = coordinator_actor::stateful_pointer<coordinator_state>;
using member = coordinator_state::member;

// How much of a device's busy share still counts so long after it was heard.
inline double still_counts(std::chrono::duration<double> after) {
  constexpr double remembers_s = 2.0;
  return std::exp(-after.count() / remembers_s);
}

// The role a member has in the book.
lease::role held_as(const coordinator_state& state, const std::string& device);

// --- coordinator_book.cpp ----------------------------------------------------------------------
// What the one before has left in the book; if its store is silent, read_book is called again.
void take_over(self_pointer self);
void read_book(self_pointer self);
// Those of the book that have not come by now will not.
void give_up_waiting(self_pointer self);

// --- coordinator_policy.cpp --------------------------------------------------------------------
// Why nothing is lent and nothing assigned before that.
error book_not_read();
lease::cluster_view view_of(self_pointer self);
// Asks the policy what every device is wanted as, and moves those that are not.
void think(self_pointer self);
caf::result<lease::lease> assign_by_hand(self_pointer self, const assign& order);
caf::result<lease::policy_settings> change_policy(self_pointer self, const set_policy& order);
// Writes what was ordered by hand since the last look.
void save_pins(self_pointer self);
void answer_assigns(self_pointer self);
caf::result<void> begin_retirement(self_pointer self, const retire_devices& order);
void answer_retirements(self_pointer self);

// --- coordinator_moves.cpp ---------------------------------------------------------------------
// The next thing to do for a member that holds this lease.
lease::move_action next_action(const coordinator_state& state, const member& m,
                               const lease::lease& held);
// Does the next thing for this device, if any; after everything that happens to it.
void reconcile(self_pointer self, const std::string& device);
// A device of the book: told its lease again, under a higher epoch, to hear what it holds.
void reclaim(self_pointer self, const std::string& device);
// A first lease that lends it to nobody, so that it takes orders of residency.
void introduce(self_pointer self, const std::string& device);
// Tells holders what they do not know yet of a device's lease.
void tell_holders(self_pointer self, const std::string& device);
void tell_trainer(self_pointer self, const std::string& device);

// --- coordinator_report.cpp --------------------------------------------------------------------
lease::event event_of(std::string kind, std::string device, std::string job, std::string why);
void add_event(self_pointer self, lease::event what);
void put_report(self_pointer self);

// --- coordinator.cpp ---------------------------------------------------------------------------
// Looks at what is due once the messages that are here are through.
void poke(self_pointer self);
// Likewise, and asks the policy; `cause`: what happened, empty: the load.
void think_soon(self_pointer self, std::string_view cause = {});
void report_soon(self_pointer self);

}  // namespace tandem::actors::lending
