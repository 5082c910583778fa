// What the serve coordinator tells of itself: to subscribers how each lane is, to the coordinator
// the load of its devices and the latencies that people feel.
#include "actors/serve_parts.hpp"

#include <algorithm>
#include <utility>

namespace tandem::actors::serving {
namespace {

constexpr auto report_period = std::chrono::milliseconds(100);
// A report costs as much as there are lanes, and so many changes come of a thousand devices that
// they are told together: beyond the first lanes, each adds so long between two reports.
constexpr std::size_t lanes_told_at_once = 32;
constexpr auto pause_a_lane = std::chrono::microseconds(50);

std::int64_t step_running_ns(self_pointer self, const lane& l) {
  if (!l.in_flight) return 0;
  return std::chrono::duration_cast<std::chrono::nanoseconds>(self->clock().now() - l.step_began)
      .count();
}

lane_report report_of(self_pointer self, const lane& l) {
  lane_report report{l.held, l.facts, {}, {}, false, l.steps, l.rows, l.busy_ns, 0};
  if (l.model) report.model = *l.model;
  if (l.scheduler) report.counts = l.scheduler->counts();
  report.ready = l.device && l.model;
  report.step_running_ns = step_running_ns(self, l);
  return report;
}

lease::service_view service_of(self_pointer self) {
  auto& state = self->state;
  const auto now = now_ns(self);
  const auto seen = state.latencies.over(now);
  lease::service_view service{seen.first_tokens, seen.first_token_ms, seen.gap_ms, 0.0};
  for (const auto& [id, live] : state.requests)
    if (!live.first_token)
      service.waiting_ms =
          std::max(service.waiting_ms, static_cast<double>(now - live.arrived) / 1e6);
  return service;
}

void tell_load(self_pointer self) {
  auto& state = self->state;
  serve_load load;
  load.lanes.reserve(state.lanes.size());
  for (auto& [name, l] : state.lanes) {
    lane_load one{name, 0, 0, 0, l.device && l.model};
    if (l.scheduler) {
      const auto counts = l.scheduler->counts();
      one.running = counts.running;
      one.queued = counts.queued;
    }
    l.busy_told_ns = std::max(l.busy_told_ns, l.busy_ns + step_running_ns(self, l));
    one.busy_ns = l.busy_told_ns;
    load.lanes.push_back(std::move(one));
  }
  load.service = service_of(self);
  self->send(state.coordinator, std::move(load));
}

}  // namespace

serve::time_ns now_ns(self_pointer self) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             self->clock().now().time_since_epoch())
      .count();
}

void report(self_pointer self) {
  auto& state = self->state;
  state.reported = self->clock().now();
  state.report_due = false;
  serve_report whole{
      state.options.model, {}, state.devices_lost, state.failures, served_versions(state)};
  whole.lanes.reserve(state.lanes.size());
  for (const auto& [name, l] : state.lanes) whole.lanes.push_back(report_of(self, l));
  for (const auto& subscriber : state.subscribers) self->send(subscriber, whole);
  tell_load(self);
}

void report_change(self_pointer self) {
  auto& state = self->state;
  const auto lanes = state.lanes.size();
  const auto pause = pause_a_lane * (lanes - std::min(lanes, lanes_told_at_once));
  if (self->clock().now() - state.reported >= pause) return report(self);
  state.report_due = true;
  keep_ticking(self);
}

void report_if_due(self_pointer self) {
  const auto& state = self->state;
  if (self->clock().now() - state.reported >= report_period) return report(self);
  if (state.report_due) report_change(self);
}

bool all_idle(const serve_state& state) {
  return std::all_of(state.lanes.begin(), state.lanes.end(), [](const auto& entry) {
    const auto& l = entry.second;
    return !l.in_flight && (!l.scheduler || l.scheduler->idle());
  });
}

void note_tokens(self_pointer self, live_request& live, int choice) {
  auto& latencies = self->state.latencies;
  const auto now = now_ns(self);
  if (!std::exchange(live.first_token, true)) latencies.first_token(now, now - live.arrived);
  auto& last = live.last_tokens[static_cast<std::size_t>(choice)];
  if (last != 0) latencies.gap(now, now - last);
  last = now;
}

}  // namespace tandem::actors::serving
