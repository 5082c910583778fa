#include "gateway/command/top_state.hpp"

#include "gateway/command/json_view.hpp"
#include "gateway/command/lease_words.hpp"

#include <algorithm>
#include <utility>

namespace tandem::gateway::command {
namespace {

using text::value;

std::optional<lease::role> role_of(const value& v) { return lease::role_from(words(v)); }

std::optional<std::int64_t> sum_of(const value::array& rows, std::string_view key) {
  std::optional<std::int64_t> sum;
  for (const value& row : rows) sum = sum.value_or(0) + integer_or(member(row, key), 0);
  return sum;
}

// A count that was set back (a restart) makes no rate.
std::optional<double> rate(std::optional<std::int64_t> before, std::optional<std::int64_t> now,
                           double seconds) {
  if (!before || !now || *now < *before || seconds <= 0) return std::nullopt;
  return static_cast<double>(*now - *before) / seconds;
}

top_device device_of(const value& row) {
  top_device device;
  device.name = words(member(row, "device"));
  device.role = role_of(member(row, "role")).value_or(lease::role::idle);
  device.moving_to = role_of(member(row, "moving_to"));
  device.pinned = !member(row, "pin").is_null();
  device.held_by = held_by(row);
  device.busy = number_or(member(row, "busy"), 0);
  device.running = integer_or(member(row, "running"), 0);
  device.queued = integer_or(member(row, "queued"), 0);
  const double capacity = number_or(member(row, "memory_capacity"), 0);
  if (capacity > 0) device.memory = number_or(member(row, "memory_used"), 0) / capacity;
  return device;
}

top_job job_of(const value& row) {
  return {words(member(row, "job")),
          integer_or(member(row, "step"), 0),
          integer_or(member(row, "step_count"), 0),
          integer_or(member(row, "trained_tokens"), 0),
          number_or(member(row, "loss"), 0),
          integer_or(member(row, "working_devices"), 0)};
}

}  // namespace

top_state top_memory::look(const value& leases, const value& history, const value& cluster,
                           double seconds) {
  const value& policy = member(leases, "policy");
  const value& service = member(leases, "service");
  top_state state;
  state.policy = words(member(policy, "name"));
  state.now_ms = integer_or(member(leases, "time_ms"), 0);
  state.window_ms = window_ms_;
  state.ttft_ms = number_or(member(service, "ttft_ms"), 0);
  state.ttft_target_ms = number_or(member(policy, "ttft_target_ms"), 0);
  state.itl_ms = number_or(member(service, "itl_ms"), 0);
  state.itl_target_ms = number_or(member(policy, "itl_target_ms"), 0);
  state.waiting_ms = number_or(member(service, "waiting_ms"), 0);
  state.moves = integer_or(member(leases, "moves"), 0);
  state.refusals = integer_or(member(leases, "refusals"), 0);

  if (state.moves < moves_) {  // another run of the platform, which counts anew
    changes_.clear();
    newest_ = 0;
  } else {
    remember(history, state.now_ms);
  }
  moves_ = state.moves;

  for (const value& row : list(member(leases, "devices"))) {
    top_device device = device_of(row);
    device.spans = spans_of(device, integer_or(member(row, "since_ms"), 0), state.now_ms);
    state.devices.push_back(std::move(device));
  }
  for (const value& row : list(member(leases, "jobs"))) state.jobs.push_back(job_of(row));

  const counted now{seconds, sum_of(list(member(cluster, "devices")), "tokens_generated"),
                    sum_of(list(member(leases, "jobs")), "trained_tokens")};
  if (before_) {
    state.served_per_second = rate(before_->served, now.served, seconds - before_->seconds);
    state.trained_per_second = rate(before_->trained, now.trained, seconds - before_->seconds);
  }
  before_ = now;
  return state;
}

void top_memory::remember(const value& history, std::int64_t now_ms) {
  std::vector<change> fresh;
  for (const value& event : list(member(history, "data"))) {
    const std::int64_t sequence = integer_or(member(event, "sequence"), 0);
    if (sequence <= newest_) continue;
    const std::string kind = words(member(event, "kind"));
    const bool moved = kind == "move" || kind == "device_lost";
    if (!moved && kind != "device_up") continue;
    fresh.push_back({words(member(event, "device")), integer_or(member(event, "time_ms"), 0),
                     moved ? role_of(member(event, "from")) : std::nullopt});
  }
  const value::array& rows = list(member(history, "data"));
  if (!rows.empty())
    newest_ = std::max(newest_, integer_or(member(rows.front(), "sequence"), newest_));
  changes_.insert(changes_.begin(), fresh.begin(), fresh.end());
  std::erase_if(changes_, [&](const change& c) { return c.time_ms < now_ms - window_ms_; });
}

std::vector<top_span> top_memory::spans_of(const top_device& device, std::int64_t since_ms,
                                           std::int64_t now_ms) const {
  const std::int64_t begin = now_ms - window_ms_;
  std::vector<top_span> spans;
  std::optional<lease::role> role = device.role;
  std::int64_t until = now_ms;
  for (const change& one : changes_) {
    if (one.device != device.name) continue;
    const std::int64_t at = std::clamp(one.time_ms, begin, until);
    spans.push_back({role, at, until});
    role = one.from;
    until = at;
  }
  // Nothing is known of before: a role without a change holds since the report says so.
  const std::int64_t known = spans.empty() ? std::clamp(since_ms, begin, until) : begin;
  spans.push_back({role, known, until});
  return spans;
}

}  // namespace tandem::gateway::command
