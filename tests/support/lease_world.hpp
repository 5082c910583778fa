// Leases as the coordinator would report them, and a coordinator that answers as a test says.
#pragma once

#include "actors/lease_board.hpp"
#include "gateway/leases/lease_control.hpp"

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace tandem::test {

class fake_lease_control final : public gateway::lease_control {
 public:
  std::vector<std::pair<std::string, std::optional<lease::role>>> assigned;
  std::vector<lease::policy_settings> policies;
  // Set: every order is refused with it.
  std::optional<error> refusal;

  void assign(std::string device, std::optional<lease::role> as, lease_answer answer) override {
    assigned.emplace_back(device, as);
    if (refusal) return answer(*refusal);
    answer(lease::lease{std::move(device), lease::role::serve, "serve bytes", 7, {}, 7, 0});
  }
  void set_policy(const lease::policy_settings& to, policy_answer answer) override {
    policies.push_back(to);
    if (refusal) return answer(*refusal);
    answer(to);
  }
};

// Two devices: cpu:0 serves, cpu:1 trains a job that has done 3 of 12 steps.
inline lease::report two_devices() {
  lease::report report;
  report.newest = 9;
  lease::device_report serving;
  serving.held = {"cpu:0", lease::role::serve, "serve bytes", 7, {}, 7, 0};
  serving.since_ms = 1'764'104'040'000;
  serving.why = "ttft 610 ms is above 500 ms";
  serving.running = 3;
  serving.queued = 2;
  serving.busy = 0.75;
  serving.memory_capacity = 1'000'000;
  serving.memory_used = 400'000;
  serving.moves = 4;
  lease::device_report training;
  training.held = {"cpu:1", lease::role::train, "ftjob-1", 9, {}, 0, 9};
  training.pin = lease::role::train;
  training.moving_to = lease::role::shared;
  training.resident = true;
  training.moves = 5;
  report.devices = {serving, training};
  report.service = {12, 120.5, 31.25, 5.0};
  report.jobs = {{"ftjob-1", 3, 12, 900, 2.5, 1}};
  report.moves = 9;
  report.refusals = 1;
  return report;
}

inline lease::event move_of(const std::string& device, lease::role from, lease::role to,
                            lease::epoch at) {
  lease::event event;
  event.time_ms = 1'764'104'040'000;
  event.kind = "move";
  event.device = device;
  event.from = from;
  event.to = to;
  event.at = at;
  event.cause = "latency_first";
  event.why = "nobody waits";
  event.given = {{"queued", 0.0}, {"busy", 0.25}};
  return event;
}

}  // namespace tandem::test
