// Devices that are there and do nothing: they may answer heartbeats, so only their steps tell.
#include "actors/fault.hpp"
#include "actors/serve_parts.hpp"
#include "runtime/log.hpp"

#include <fmt/format.h>

#include <chrono>

namespace tandem::actors::serving {
namespace {

// A tick that comes so late: the process was stopped, or its machine slept. What devices answered
// meanwhile may still lie unread.
constexpr auto standstill = std::chrono::seconds(1);

}  // namespace

void forgive_standstill(self_pointer self) {
  const auto late = self->clock().now() - self->state.tick_due;
  if (late < standstill) return;
  for (auto& [name, l] : self->state.lanes)
    if (l.in_flight) l.step_began += late;
}

void look_at_progress(self_pointer self, lane& l) {
  if (!l.in_flight || !l.device || !l.model || !l.arriving.empty()) return;
  const auto took = self->clock().now() - l.step_began;
  const auto least = serve::step_patience_min(l.model->parameter_count);
  if (took <= l.pace.patience(l.step_rows, least, self->state.options.step_deadline)) return;
  using seconds = std::chrono::duration<double>;
  auto how = fmt::format(
      "step {} of {} rows made no progress in {:.1f} s, where steps took up to {:.3f} s of late",
      l.step, l.step_rows, seconds(took).count(), seconds(l.pace.slowest()).count());
  log_error("device {}: {}: it counts as dead", l.held.device, how);
  // Its node is to start it anew.
  self->send(self->state.coordinator, device_ended{l.held.device, how});
  give_up_device(self, l, to_caf({errc::timed_out, how, ""}));
}

}  // namespace tandem::actors::serving
