// How a device gets from what it is to what it is wanted as: asked back from who serves, its lease
// written, told to the device, then told to its holders. One thing at a time (lease/mover.hpp).
#include "actors/coordinator_parts.hpp"
#include "runtime/log.hpp"

#include <fmt/format.h>

#include <chrono>
#include <utility>

namespace tandem::actors::lending {
namespace {

using lease::role;
using lease::stage;

constexpr auto lease_deadline = std::chrono::seconds(10);
// A device that refuses a lease as too old has seen higher epochs than our book remembers.
constexpr lease::epoch epochs_skipped = lease::epoch{1} << 20U;

std::int64_t us_since(self_pointer self, coordinator_state::time_point at) {
  return std::chrono::duration_cast<std::chrono::microseconds>(self->clock().now() - at).count();
}

// This very device, if it is still here.
member* find(self_pointer self, const std::string& device, const gpu_actor& actor) {
  auto it = self->state.members.find(device);
  return it == self->state.members.end() || it->second.device != actor ? nullptr : &it->second;
}

void refused(self_pointer self, const std::string& device, const error& why) {
  auto& state = self->state;
  auto& m = state.members.at(device);
  m.retry_at = self->clock().now() + state.options.retry_pause;
  ++state.refusals;
  report_soon(self);
  if (m.refused_why == why.detail) return;
  m.refused_why = why.detail;
  const auto held = held_as(state, device);
  log_warning("device {} stays with {}: {}", device, lease::name_of(held), why.detail);
  lease::event event;
  event.kind = "refused";
  event.device = device;
  event.job = state.job.id;
  event.from = held;
  event.to = m.wanted;
  event.at = state.book.newest();
  event.cause = m.cause;
  event.why = why.detail;
  event.given = m.given;
  add_event(self, std::move(event));
}

void move_done(self_pointer self, const std::string& device, const lease::lease& was,
               const lease::lease& lent, lease_taken& taken) {
  auto& state = self->state;
  auto& m = state.members.at(device);
  m.stage = stage::still;
  m.unsure = false;
  m.met = true;
  m.refused_why.clear();
  m.facts = std::move(taken.facts);
  if (was.held_as != lent.held_as) {
    m.changed = self->clock().now();
    m.changed_unix_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                            std::chrono::system_clock::now().time_since_epoch())
                            .count();
  }
  if (state.options.board && m.moved_at == lent.at)
    state.options.board->complete(lent.at, us_since(self, m.move_decided), -1);
  report_soon(self);
  if (const auto expected = std::exchange(m.expected, std::nullopt);
      expected && *expected != taken.before) {
    // A device of a new process has held nothing yet; one that did and disagrees is worth a line.
    if (taken.before.at != 0)
      log_info("device {} held {} of epoch {}, the book says {} of epoch {}: it begins anew",
               device, lease::name_of(taken.before.held_as), taken.before.at,
               lease::name_of(expected->held_as), expected->at);
    return introduce(self, device);
  }
  tell_holders(self, device);
  reconcile(self, device);
}

void tell_of_move(self_pointer self, const lease::lease& was, const lease::lease& lent) {
  auto& state = self->state;
  auto& m = state.members.at(lent.device);
  ++m.moves;
  ++state.moves;
  m.moved_at = lent.at;
  m.move_decided = m.decided;
  lease::event event;
  event.kind = "move";
  event.device = lent.device;
  event.job = lent.job().empty() || !lease::trains(lent.held_as) ? was.job() : lent.job();
  if (!lease::trains(lent.held_as) && !lease::trains(was.held_as)) event.job.clear();
  event.from = was.held_as;
  event.to = lent.held_as;
  event.at = lent.at;
  event.cause = m.cause;
  event.why = m.why;
  event.given = m.given;
  add_event(self, std::move(event));
}

// Written first, then told to the device; its holders hear of it when the device has agreed.
void lend(self_pointer self, const std::string& device, role as, const std::string& server,
          const std::string& job) {
  auto& state = self->state;
  auto& m = state.members.at(device);
  if (state.book_unread) return refused(self, device, book_not_read());
  const auto was = *state.book.find(device);
  auto made = state.book.lend(device, as, server, job);
  if (!made) return think_soon(self, "");  // whoever wanted it has gone meanwhile
  const auto lent = *std::move(made);
  const auto undo = [self, was] { self->state.book.restore({was}, self->state.book.newest()); };
  if (state.options.book)
    if (auto saved = state.options.book->save(lent); !saved) {
      undo();
      if (m.expected) m.unsure = true;  // nobody has told it yet
      return refused(self, device, saved.error());
    }
  m.stage = stage::taking;
  if (was.held_as != as) tell_of_move(self, was, lent);
  report_soon(self);
  self->request(m.device, lease_deadline, take_lease{lent})
      .then(
          [=, actor = m.device](lease_taken& taken) {
            const auto* held = self->state.book.find(device);
            if (find(self, device, actor) && held && held->at == lent.at)
              move_done(self, device, was, lent, taken);
          },
          [=, actor = m.device](const caf::error& why) {
            auto* now = find(self, device, actor);
            const auto* held = self->state.book.find(device);
            if (!now || !held || held->at != lent.at) return;
            undo();
            now->stage = stage::still;
            now->unsure = true;
            if (why == caf::sec::request_receiver_down) return;  // it died: its monitor says so
            const auto reason = from_caf(why);
            if (reason.code == errc::conflict)
              self->state.book.restore({}, self->state.book.newest() + epochs_skipped);
            refused(self, device,
                    {reason.code, fmt::format("it did not take its lease: {}", reason.detail), ""});
          });
}

void release(self_pointer self, const std::string& device) {
  auto& state = self->state;
  auto& m = state.members.at(device);
  m.stage = stage::releasing;
  report_soon(self);
  self->request(state.serve_coordinator, caf::infinite, release_device{*state.book.find(device)})
      .then(
          [=, actor = m.device](const device_released&) {
            auto* now = find(self, device, actor);
            if (!now || (now->stage != stage::releasing && now->stage != stage::taking_back))
              return;
            now->stage = stage::still;
            now->told_serve = 0;
            // The order was taken back too late: then it is lent to serving again.
            if (lease::serves(now->wanted)) tell_holders(self, device);
            reconcile(self, device);
          },
          [=, actor = m.device, server = state.serve_coordinator](const caf::error& why) {
            auto* now = find(self, device, actor);
            if (!now || (now->stage != stage::releasing && now->stage != stage::taking_back))
              return;
            const bool meant = std::exchange(now->stage, stage::still) == stage::taking_back;
            if (self->state.serve_coordinator != server) return reconcile(self, device);
            const auto reason = from_caf(why);
            if (!meant && !lease::serves(now->wanted))
              refused(self, device,
                      {reason.code, "serving does not give it back: " + reason.detail, ""});
            reconcile(self, device);
          });
}

}  // namespace

lease::role held_as(const coordinator_state& state, const std::string& device) {
  const auto* held = state.book.find(device);
  return held ? held->held_as : role::idle;
}

lease::move_action next_action(const coordinator_state& state, const member& m,
                               const lease::lease& held) {
  const auto role = held.held_as;
  const bool in_service = m.told_serve != 0 && state.serve_coordinator;
  // The same role for somebody else is another lease.
  const bool other_job =
      lease::trains(role) && held.job() != state.job.id && state.job.homes.contains(held.device);
  const bool other_server =
      lease::serves(role) && state.serve_coordinator && held.holder != state.serve_holder;
  return lease::next_action(
      {role, m.wanted, m.stage, in_service, m.unsure || other_job || other_server});
}

void reconcile(self_pointer self, const std::string& device) {
  auto& state = self->state;
  auto it = state.members.find(device);
  if (it == state.members.end()) return;
  auto& m = it->second;
  if (m.stage == stage::still && m.retry_at > self->clock().now()) return;
  if (m.expected && m.unsure && m.stage == stage::still) return reclaim(self, device);
  switch (next_action(state, m, *state.book.find(device))) {
    case lease::move_action::none:
      return;
    case lease::move_action::release:
      return release(self, device);
    case lease::move_action::take_back:
      m.stage = stage::taking_back;
      self->send(state.serve_coordinator, lease_changed{*state.book.find(device)});
      return report_soon(self);
    case lease::move_action::lend:
      return lend(self, device, m.wanted, state.serve_holder, state.job.id);
  }
}

void reclaim(self_pointer self, const std::string& device) {
  const auto held = *self->state.book.find(device);
  auto& m = self->state.members.at(device);
  m.expected = held;
  m.wanted = held.held_as;
  lend(self, device, held.held_as, lease::serves(held.held_as) ? held.holder : "", held.job());
}

void introduce(self_pointer self, const std::string& device) {
  if (self->state.members.at(device).stage == stage::still) lend(self, device, role::idle, "", "");
}

void tell_holders(self_pointer self, const std::string& device) {
  auto& state = self->state;
  auto& m = state.members.at(device);
  const auto& held = *state.book.find(device);
  if (!m.met) return;
  if (state.serve_coordinator && held.holder == state.serve_holder && held.serve_since != 0) {
    if (m.told_serve == held.serve_since)
      self->send(state.serve_coordinator, lease_changed{held});
    else
      self->send(state.serve_coordinator, lease_granted{held, m.facts, m.device});
  }
  m.told_serve =
      state.serve_coordinator && held.holder == state.serve_holder ? held.serve_since : 0;
  tell_trainer(self, device);
}

void tell_trainer(self_pointer self, const std::string& device) {
  auto& state = self->state;
  auto& m = state.members.at(device);
  const auto& held = *state.book.find(device);
  if (!m.met) return;
  const auto train_since = held.job() == state.job.id ? held.train_since : 0;
  if (!state.job.id.empty() && state.job.to && train_since != m.told_train)
    train_since != 0 ? self->send(state.job.to, training_granted{held})
                     : self->send(state.job.to, training_revoked{held});
  m.told_train = state.job.id.empty() ? 0 : train_since;
}

}  // namespace tandem::actors::lending
