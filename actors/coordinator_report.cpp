// What the coordinator tells the board: events as they happen, the state as it is.
#include "actors/coordinator_parts.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

namespace tandem::actors::lending {

lease::event event_of(std::string kind, std::string device, std::string job, std::string why) {
  lease::event event;
  event.kind = std::move(kind);
  event.device = std::move(device);
  event.job = std::move(job);
  event.why = std::move(why);
  return event;
}

void add_event(self_pointer self, lease::event what) {
  const auto& board = self->state.options.board;
  if (!board) return;
  what.time_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                     std::chrono::system_clock::now().time_since_epoch())
                     .count();
  board->add(std::move(what));
}

void put_report(self_pointer self) {
  auto& state = self->state;
  state.report_due = state.report_stale = false;
  state.reported = self->clock().now();
  if (!state.options.board) return;
  lease::report whole;
  whole.newest = state.book.newest();
  whole.policy = state.policy;
  whole.service = state.service;
  whole.moves = state.moves;
  whole.refusals = state.refusals;
  int working = 0;
  for (const auto& [name, m] : state.members) {
    lease::device_report d;
    d.held = *state.book.find(name);
    if (const auto pin = state.pins.find(name); pin != state.pins.end()) d.pin = pin->second;
    if (m.stage != lease::stage::still || m.wanted != d.held.held_as) d.moving_to = m.wanted;
    d.resident = state.job.homes.contains(name);
    d.since_ms = m.changed_unix_ms;
    d.why = m.why;
    d.running = m.running;
    d.queued = m.queued;
    d.busy = m.busy * still_counts(self->clock().now() - m.busy_at);
    d.memory_capacity = m.facts.memory_capacity;
    d.memory_used = std::accumulate(m.facts.memory_by_owner.begin(), m.facts.memory_by_owner.end(),
                                    std::uint64_t{0});
    d.moves = m.moves;
    working += m.told_train != 0;
    whole.devices.push_back(std::move(d));
  }
  if (const auto& job = state.job; !job.id.empty())
    whole.jobs.push_back({job.id, job.progress.step, job.progress.step_count,
                          job.progress.trained_tokens, job.progress.loss, working});
  state.options.board->put(std::move(whole));
}

}  // namespace tandem::actors::lending
