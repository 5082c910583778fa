#include "actors/coordinator.hpp"

#include "actors/coordinator_parts.hpp"
#include "actors/fault.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace tandem::actors {
namespace lending {
namespace {

using lease::role;
using std::chrono::duration;

// --- devices -----------------------------------------------------------------------------------

void device_gone(self_pointer self, const std::string& device, const caf::error& why) {
  auto& state = self->state;
  auto it = state.members.find(device);
  if (it == state.members.end()) return;
  auto lost = *state.book.find(device);
  auto event = event_of("device_lost", device, lost.job(), from_caf(why).detail);
  event.from = lost.held_as;
  event.at = lost.at;
  if (const auto known = it->second.told_serve; known != 0 && state.serve_coordinator) {
    lost.serve_since = known;
    self->send(state.serve_coordinator, lease_lost{lost});
  }
  self->demonitor(it->second.device.address());
  state.book.remove(device);
  state.job.homes.erase(device);
  state.leaving.erase(device);
  state.unexplained.insert(device);
  state.members.erase(it);
  if (state.options.book)
    if (auto done = state.options.book->forget(device, state.book.newest()); !done)
      log_warning("the book still names device {}: {}", device, done.error().detail);
  add_event(self, std::move(event));
  report_soon(self);
  think_soon(self, fmt::format("{} died", device));
}

void device_came(self_pointer self, const device_up& fact) {
  auto& state = self->state;
  if (auto it = state.members.find(fact.name); it != state.members.end()) {
    if (it->second.device == fact.device) return;  // told again
    device_gone(self, fact.name, caf::exit_reason::unknown);
  }
  self->monitor(fact.device);
  self->state.unexplained.erase(fact.name);
  auto& m = state.members[fact.name];
  m.device = fact.device;
  m.node = caf::actor_cast<caf::actor_addr>(self->current_sender());
  m.changed = self->clock().now();
  auto event = event_of("device_up", fact.name, "", "the device is there");
  const auto known = state.awaited.find(fact.name);
  if (known != state.awaited.end() && known->second.held_as != role::idle) {
    state.book.restore({known->second}, 0);
    event.at = known->second.at;
    event.why = fmt::format("the device is there again, with a lease of epoch {}", event.at);
    reclaim(self, fact.name);
  } else {
    event.at = state.book.add(fact.name).at;
  }
  if (known != state.awaited.end()) state.awaited.erase(known);
  add_event(self, std::move(event));
  report_soon(self);
  think_soon(self, "the device came");
}

// Told by somebody other than its node: it is there, and does nothing. Then its node ends it.
void end_stuck(self_pointer self, const member& m, const device_ended& fact) {
  if (!m.node || m.node == caf::actor_cast<caf::actor_addr>(self->current_sender())) return;
  if (const auto node = caf::actor_cast<node_actor>(m.node))
    self->send(node, worker_ended{fact.name, 0, fact.how});
}

// The news of its end and of its silence come in any order.
void device_process_ended(self_pointer self, const device_ended& fact) {
  auto& state = self->state;
  if (const auto it = state.members.find(fact.name); it != state.members.end()) {
    end_stuck(self, it->second, fact);
    device_gone(self, fact.name, to_caf({errc::unavailable, fact.how, ""}));
  } else if (state.unexplained.contains(fact.name) && state.options.board)
    state.options.board->explain_loss(fact.name, fact.how);
  state.unexplained.erase(fact.name);
}

// --- who serves --------------------------------------------------------------------------------

void server_gone(self_pointer self) {
  auto& state = self->state;
  state.serve_coordinator = nullptr;
  for (auto& [name, m] : state.members) {
    m.told_serve = 0;
    m.running = m.queued = 0;
    m.busy = 0.0;
  }
  state.service = {};
  think_soon(self, "who served is gone");
}

void server_came(self_pointer self, const want_devices& order) {
  auto& state = self->state;
  if (state.serve_coordinator && state.serve_coordinator != order.to) {
    self->demonitor(state.serve_coordinator.address());
    server_gone(self);
    think(self);  // the old one's tenures end
  }
  self->monitor(order.to);
  state.serve_holder = order.holder;
  state.serve_coordinator = order.to;
  self->send(order.to, policy_changed{state.policy});
  for (auto& [name, m] : state.members) {
    if (m.stage != lease::stage::still) continue;
    m.told_serve = 0;
    if (lease::serves(held_as(state, name))) tell_holders(self, name);
  }
  think_soon(self, "the device came");
}

// An average that forgets. `busy_ns` grows, unless it is another life of the lane.
void hear_busy(member& m, std::int64_t busy_ns, coordinator_state::time_point now) {
  const duration<double> window = now - m.busy_at;
  if (window.count() <= 0.0) return;
  const double share =
      busy_ns < m.busy_ns
          ? 0.0
          : std::min(1.0, static_cast<double>(busy_ns - m.busy_ns) / 1e9 / window.count());
  m.busy = share + (m.busy - share) * still_counts(window);
  m.busy_ns = busy_ns;
  m.busy_at = now;
}

void hear_load(self_pointer self, const serve_load& fact) {
  auto& state = self->state;
  const auto now = self->clock().now();
  state.service = fact.service;
  state.load_at = now;
  for (const auto& lane : fact.lanes) {
    auto it = state.members.find(lane.device);
    if (it == state.members.end()) continue;
    auto& m = it->second;
    if (lane.ready && !std::exchange(m.ready, true) && state.job.to)
      self->send(state.job.to, homes_changed{});
    m.running = lane.running;
    m.queued = lane.queued;
    hear_busy(m, lane.busy_ns, now);
  }
  state.report_stale = true;
  if (!state.job.homes.empty()) think_soon(self);
}

// --- who trains --------------------------------------------------------------------------------

void job_gone(self_pointer self, const std::string& job, std::string_view why) {
  auto& state = self->state;
  if (state.job.id != job) return;
  if (state.job.to) self->demonitor(state.job.to.address());
  for (auto& [name, m] : state.members) m.told_train = 0;
  if (!state.job.homes.empty()) add_event(self, event_of("job_left", "", job, std::string(why)));
  state.job = {};
  report_soon(self);
  think_soon(self, "the job left");
}

// Its devices would keep what it left in their memory: nobody else is there to close it.
void trainer_died(self_pointer self, const caf::error& why) {
  auto& state = self->state;
  const auto job = state.job.id;
  for (const auto& device : state.job.homes)
    if (auto it = state.members.find(device); it != state.members.end())
      self->request(it->second.device, caf::infinite,
                    close_training{state.book.find(device)->at, job})
          .then([] {}, [](const caf::error&) {});
  job_gone(self, job, "its coordinator is gone: " + from_caf(why).detail);
}

std::vector<shared_device> job_came(self_pointer self, const want_training& order) {
  auto& state = self->state;
  if (!state.job.id.empty() && state.job.id != order.job)
    job_gone(self, state.job.id, order.job + " took its place");
  if (state.job.to != order.to) {
    if (state.job.to) self->demonitor(state.job.to.address());
    self->monitor(order.to);
  }
  state.job.id = order.job;
  state.job.priority = order.priority;
  state.job.to = order.to;
  std::vector<shared_device> shared;
  if (state.book_unread) return shared;  // no device knows an epoch of ours
  for (auto& [name, m] : state.members) {
    if (state.leaving.contains(name)) continue;
    // A running job does not wait for a device that loads its model still.
    if (!state.job.homes.empty() && !state.job.homes.contains(name) && !m.ready) continue;
    if (!m.met) introduce(self, name);
    shared.push_back({*state.book.find(name), m.device, m.told_train, m.facts.gpu});
  }
  return shared;
}

void job_opened(self_pointer self, const job_resident& fact) {
  auto& state = self->state;
  if (state.job.id != fact.job) return;  // it was returned meanwhile
  state.job.homes.clear();
  state.job.bytes_each = fact.bytes_each;
  // After a restart it may speak before its devices do.
  state.job.homes.insert(fact.devices.begin(), fact.devices.end());
  auto event = event_of("job_opened", "", fact.job,
                        fmt::format("it lies on {} device{}, {} bytes each", fact.devices.size(),
                                    fact.devices.size() == 1 ? "" : "s", fact.bytes_each));
  event.given = {{"devices", static_cast<double>(fact.devices.size())},
                 {"bytes_each", static_cast<double>(fact.bytes_each)}};
  add_event(self, std::move(event));
  // It may hold devices since before a restart.
  for (const auto& [device, m] : state.members)
    if (state.job.homes.contains(device) && m.stage == lease::stage::still)
      tell_trainer(self, device);
  think_soon(self, "the job opened here");
  report_soon(self);
}

void hear_work(self_pointer self, const work_began& fact) {
  auto& state = self->state;
  auto it = state.members.find(fact.in.device);
  if (it == state.members.end() || it->second.moved_at != fact.in.at || !state.options.board)
    return;
  state.options.board->complete(fact.in.at, -1,
                                std::chrono::duration_cast<std::chrono::microseconds>(
                                    self->clock().now() - it->second.move_decided)
                                    .count());
  state.report_stale = true;
  poke(self);
}

// --- looking -----------------------------------------------------------------------------------

bool must_tick(self_pointer self) {
  const auto& state = self->state;
  const auto now = self->clock().now();
  if (!state.job.homes.empty() || state.report_stale || !state.awaited.empty() ||
      !state.retirements.empty() || state.book_unread)
    return true;
  if (state.took_over && now - state.began < state.options.return_period) return true;
  return std::any_of(state.members.begin(), state.members.end(), [&](const auto& entry) {
    const auto& m = entry.second;
    return m.stage == lease::stage::still && m.retry_at != coordinator_state::time_point{} &&
           (m.unsure || m.wanted != held_as(state, entry.first));
  });
}

void look(self_pointer self) {
  auto& state = self->state;
  const auto now = self->clock().now();
  state.poked = false;
  if (state.ticking && now >= state.tick_at) {
    state.ticking = false;
    // Each report of load is thought about when it comes: then there is nothing new to say.
    if (now - state.thought >= state.options.look_period / 2) state.think_due = true;
  }
  if (state.book_unread && now >= state.read_again_at) read_book(self);
  if (!state.awaited.empty()) give_up_waiting(self);
  save_pins(self);
  if (state.think_due) think(self);
  answer_assigns(self);
  answer_retirements(self);
  if (state.report_due || (state.report_stale && now - state.reported >= state.options.look_period))
    put_report(self);
  if (state.ticking || !must_tick(self)) return;
  state.ticking = true;
  state.tick_at = now + state.options.look_period;
  self->delayed_send(self, state.options.look_period, look_around{});
}

}  // namespace

void poke(self_pointer self) {
  if (!std::exchange(self->state.poked, true)) self->send(self, look_around{});
}

void think_soon(self_pointer self, std::string_view cause) {
  self->state.think_due = true;
  if (!cause.empty()) self->state.cause = cause;
  poke(self);
}

void report_soon(self_pointer self) {
  self->state.report_due = true;
  poke(self);
}

}  // namespace lending

coordinator_actor::behavior_type coordinator(lending::self_pointer self,
                                             coordinator_options options) {
  using namespace lending;
  keep_exception_text(self);
  self->state.policy = options.policy;
  self->state.options = std::move(options);
  self->set_down_handler([=](const caf::down_msg& down) {
    auto& state = self->state;
    if (state.serve_coordinator && state.serve_coordinator.address() == down.source)
      return server_gone(self);
    if (state.job.to && state.job.to.address() == down.source)
      return trainer_died(self, down.reason);
    for (const auto& [name, m] : state.members)
      if (m.device.address() == down.source) {
        const auto device = name;
        return device_gone(self, device, down.reason);
      }
  });
  take_over(self);
  // CAF tries them in this order: what comes most often stands first.
  return {
      [=](look_around) { look(self); },
      [=](const job_progress& fact) {
        if (fact.job != self->state.job.id) return;
        self->state.job.progress = fact;
        self->state.report_stale = true;
        poke(self);
      },
      [=](const serve_load& fact) { hear_load(self, fact); },
      [=](const device_up& fact) { device_came(self, fact); },
      [=](const device_ended& fact) { device_process_ended(self, fact); },
      [=](const retire_devices& order) { return begin_retirement(self, order); },
      [=](const want_devices& order) { server_came(self, order); },
      [=](const want_training& order) { return job_came(self, order); },
      [=](const job_resident& fact) { job_opened(self, fact); },
      [=](const return_devices& order) { job_gone(self, order.job, "it left its devices"); },
      [=](const work_began& fact) { hear_work(self, fact); },
      [=](const assign& order) { return assign_by_hand(self, order); },
      [=](const set_policy& order) { return change_policy(self, order); },
      [=](list_leases) { return self->state.book.leases(); },
  };
}

}  // namespace tandem::actors
