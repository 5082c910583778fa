// The coordinator's beginning: the book of the one before, who was awaited, who has come meanwhile.
#include "actors/coordinator_parts.hpp"
#include "runtime/log.hpp"

#include <fmt/format.h>

#include <utility>

namespace tandem::actors::lending {
namespace {

using lease::role;

// Those that came before the book could be read hold what it says, if they hold anything.
void meet_again(self_pointer self) {
  auto& state = self->state;
  for (auto& [name, m] : state.members) {
    m.retry_at = {};
    const auto known = state.awaited.find(name);
    if (known != state.awaited.end() && known->second.held_as != role::idle) {
      state.book.restore({known->second}, 0);
      reclaim(self, name);
    } else {
      state.book.add(name);
    }
    if (known != state.awaited.end()) state.awaited.erase(known);
  }
}

}  // namespace

void read_book(self_pointer self) {
  auto& state = self->state;
  const auto now = self->clock().now();
  const auto saved = state.options.book->load();
  if (!saved) {
    const auto& why = saved.error();
    // Its epochs must not be given out again: it waits for a store that may answer yet.
    if (why.code == errc::unavailable || why.code == errc::timed_out) {
      if (!std::exchange(state.book_unread, true))
        log_warning("the book of leases cannot be read yet, no device is lent: {}", why.detail);
      state.read_again_at = now + state.options.retry_pause;
      return;
    }
    state.book_unread = false;
    log_error("the book of leases cannot be read, every device begins anew: {}", why.detail);
    return meet_again(self);
  }
  state.book_unread = false;
  state.began = now;
  state.book.restore({}, saved->newest);
  for (const auto& held : saved->leases) state.awaited[held.device] = held;
  for (const auto& [device, as] : saved->pins) state.pins[device] = as;
  state.saved_pins = state.pins;
  state.took_over = !state.awaited.empty();
  add_event(self, event_of("coordinator", "", "",
                           fmt::format("a coordinator took over at epoch {} with {} leases and {} "
                                       "orders by hand",
                                       saved->newest, saved->leases.size(), saved->pins.size())));
  meet_again(self);
  think_soon(self);
}

void take_over(self_pointer self) {
  auto& state = self->state;
  state.began = self->clock().now();
  if (const auto& board = state.options.board)
    if (const auto before = board->newest()) state.policy = before->policy;
  if (!state.options.book) return;
  read_book(self);
  poke(self);
}

// Those of the book that have not come by now will not.
void give_up_waiting(self_pointer self) {
  auto& state = self->state;
  if (self->clock().now() - state.began < state.options.lost_after) return;
  for (const auto& [device, held] : std::exchange(state.awaited, {})) {
    auto event = event_of("device_lost", device, held.job(),
                          fmt::format("it did not come within {} ms of the coordinator's start",
                                      state.options.lost_after.count()));
    event.from = held.held_as;
    event.at = held.at;
    if (state.options.book)
      if (auto done = state.options.book->forget(device, state.book.newest()); !done)
        log_warning("the book still names device {}: {}", device, done.error().detail);
    add_event(self, std::move(event));
  }
}

}  // namespace tandem::actors::lending
