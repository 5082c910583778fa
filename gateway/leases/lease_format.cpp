#include "gateway/leases/lease_format.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace tandem::gateway {

namespace {

using text::value;

value number(std::uint64_t n) { return static_cast<std::int64_t>(n); }
value name(lease::role r) { return std::string(lease::name_of(r)); }
value name_or_null(const std::optional<lease::role>& r) { return r ? name(*r) : value(); }
value words_or_null(std::string_view words) {
  return words.empty() ? value() : value(std::string(words));
}
value microseconds_or_null(std::int64_t us) { return us < 0 ? value() : value(us); }

value device_json(const lease::device_report& device) {
  value shown = lease_json(device.held);
  shown.set("pin", name_or_null(device.pin));
  shown.set("moving_to", name_or_null(device.moving_to));
  shown.set("resident", device.resident);
  shown.set("since_ms", device.since_ms);
  shown.set("why", device.why);
  shown.set("running", device.running);
  shown.set("queued", device.queued);
  shown.set("busy", device.busy);
  shown.set("memory_capacity", number(device.memory_capacity));
  shown.set("memory_used", number(device.memory_used));
  shown.set("moves", number(device.moves));
  return shown;
}

value job_json(const lease::job_report& job) {
  return value::object{{"job", job.job},
                       {"step", job.step},
                       {"step_count", job.step_count},
                       {"trained_tokens", job.trained_tokens},
                       {"loss", job.loss},
                       {"working_devices", job.working_devices}};
}

}  // namespace

value lease_json(const lease::lease& held) {
  return value::object{{"device", held.device},
                       {"role", name(held.held_as)},
                       {"holder", words_or_null(held.holder)},
                       {"job", words_or_null(held.job())},
                       {"epoch", number(held.at)}};
}

value policy_json(const lease::policy_settings& policy) {
  return value::object{{"name", std::string(lease::name_of(policy.kind))},
                       {"min_serve_devices", policy.min_serve_devices},
                       {"max_train_devices", policy.max_train_devices},
                       {"cooldown_ms", policy.cooldown_ms},
                       {"ttft_target_ms", policy.ttft_target_ms},
                       {"itl_target_ms", policy.itl_target_ms}};
}

value lease_event_json(const lease::event& event) {
  value::object numbers;
  for (const auto& [key, given] : event.given) numbers.emplace_back(key, given);
  return value::object{{"sequence", number(event.sequence)},
                       {"time_ms", event.time_ms},
                       {"kind", event.kind},
                       {"device", words_or_null(event.device)},
                       {"job", words_or_null(event.job)},
                       {"from", name(event.from)},
                       {"to", name(event.to)},
                       {"epoch", number(event.at)},
                       {"cause", event.cause},
                       {"why", event.why},
                       {"numbers", std::move(numbers)},
                       {"held_after_us", microseconds_or_null(event.held_after_us)},
                       {"first_work_after_us", microseconds_or_null(event.first_work_after_us)}};
}

value lease_report_json(const lease::report& report, std::int64_t now_ms) {
  value::array devices;
  for (const auto& device : report.devices) devices.push_back(device_json(device));
  value::array jobs;
  for (const auto& job : report.jobs) jobs.push_back(job_json(job));
  const auto& service = report.service;
  return value::object{{"time_ms", now_ms},
                       {"epoch", number(report.newest)},
                       {"policy", policy_json(report.policy)},
                       {"devices", std::move(devices)},
                       {"service", value::object{{"requests", service.requests},
                                                 {"ttft_ms", service.ttft_ms},
                                                 {"itl_ms", service.itl_ms},
                                                 {"waiting_ms", service.waiting_ms}}},
                       {"jobs", std::move(jobs)},
                       {"moves", number(report.moves)},
                       {"refusals", number(report.refusals)}};
}

}  // namespace tandem::gateway
