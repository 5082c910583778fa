// Who gets which device: a pure function of load, latencies against their targets, what training
// waits for, and what was decided before. Asked several times a second; the coordinator acts.
#pragma once

#include "runtime/lease/lease_book.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::lease {

// latency_first: targets hold, all else trains. train_first: min_serve_devices serve (and share),
// all else trains whatever the load. fixed: the same split, dedicated, never moved by load.
enum class policy_kind : std::uint8_t { latency_first, train_first, fixed };
std::string_view name_of(policy_kind kind);
std::optional<policy_kind> policy_from(std::string_view name);

struct policy_settings {
  policy_kind kind = policy_kind::latency_first;
  int min_serve_devices = 1;  // serve or share at any time, as long as so many are up
  int max_train_devices = 0;  // train or share at most; 0: all
  int cooldown_ms = 2000;     // a device given to training stays put so long unless targets break
  int ttft_target_ms = 500;   // time to first token, queue included
  int itl_target_ms = 100;    // between two tokens of a stream
  bool operator==(const policy_settings&) const = default;
};

// A device as the coordinator knows it now. Times are of one monotonic clock, in milliseconds.
struct device_view {
  std::string name;
  role held_as = role::idle;
  bool resident = false;      // the job lies in its memory: it can train at once
  std::optional<role> pin;    // ordered by hand
  std::int64_t since_ms = 0;  // of the last change of its role
  int running = 0;            // sequences with a slot
  int queued = 0;             // waiting for one
  double busy = 0.0;          // share of the last seconds it worked on steps of serving
  bool operator==(const device_view&) const = default;
};

// How serving did over the last window (about a second), over all devices.
struct service_view {
  int requests = 0;         // that got their first token
  double ttft_ms = 0.0;     // 95th percentile; 0: none
  double itl_ms = 0.0;      // likewise
  double waiting_ms = 0.0;  // the oldest request without a first token waits so long
  bool operator==(const service_view&) const = default;
};

struct training_view {
  std::string job;  // resident somewhere and wanting devices; empty: none
  int priority = 0;
  bool operator==(const training_view&) const = default;
};

struct cluster_view {
  std::int64_t now_ms = 0;
  std::vector<device_view> devices;  // by name
  service_view service;
  training_view training;
  std::int64_t calm_since_ms = 0;  // load has been calm without a break since then; -1: it is not
  std::int64_t safe_since_ms = 0;  // likewise: no target has been threatened
  // How often of late a device that was given to training had to come back: each doubles the
  // cooldown, up to four times it.
  int regrets = 0;
};

// How serving stands against its targets. Between calm and threatened nothing moves.
enum class pressure : std::uint8_t { calm, steady, threatened };
pressure pressure_of(const policy_settings& settings, const cluster_view& view);

using numbers = std::vector<std::pair<std::string, double>>;

struct wish {
  std::string device;
  role as = role::idle;
  std::string why;  // one sentence with its numbers
  numbers given;    // the same numbers by name; none of a device that stays as it is
};

// One wish a device, in the view's order; `as` equal to what it is means it stays. Pins are obeyed
// as far as they keep min_serve_devices.
std::vector<wish> decide(const policy_settings& settings, const cluster_view& view);

// Are these settings possible? Refused with the field and its bounds.
result<void> check_policy(const policy_settings& settings);

// May this device be ordered by hand into this role (nothing: back to the policy)? Refused with the
// numbers and what would be allowed: an unknown device, train where no job is or where it does not
// fit, a pin that would leave fewer than min_serve_devices or give more than max_train_devices.
result<void> check_pin(const policy_settings& settings, const cluster_view& view,
                       std::string_view device, std::optional<role> as);

}  // namespace tandem::lease
