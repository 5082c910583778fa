#include "gateway/leases/lease_metrics.hpp"

#include <fmt/format.h>

#include <array>
#include <functional>
#include <iterator>
#include <string_view>

namespace tandem::gateway {

namespace {

constexpr std::array roles = {lease::role::idle, lease::role::serve, lease::role::train,
                              lease::role::shared};

void head(std::string& out, std::string_view name, std::string_view type, std::string_view help) {
  fmt::format_to(std::back_inserter(out), "# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
}

void single(std::string& out, std::string_view name, std::string_view type, std::string_view help,
            double value) {
  head(out, name, type, help);
  fmt::format_to(std::back_inserter(out), "{} {}\n", name, value);
}

// A label's value as the exposition format wants it.
std::string label(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\\' || c == '"') escaped += '\\';
    if (c == '\n')
      escaped += "\\n";
    else
      escaped += c;
  }
  return escaped;
}

void by_device(std::string& out, const lease::report& report, std::string_view name,
               std::string_view type, std::string_view help,
               const std::function<double(const lease::device_report&)>& value) {
  head(out, name, type, help);
  for (const auto& device : report.devices)
    fmt::format_to(std::back_inserter(out), "{}{{device=\"{}\"}} {}\n", name,
                   label(device.held.device), value(device));
}

void by_job(std::string& out, const lease::report& report, std::string_view name,
            std::string_view type, std::string_view help,
            const std::function<double(const lease::job_report&)>& value) {
  head(out, name, type, help);
  for (const auto& job : report.jobs)
    fmt::format_to(std::back_inserter(out), "{}{{job=\"{}\"}} {}\n", name, label(job.job),
                   value(job));
}

void histogram(std::string& out, std::string_view name, std::string_view help,
               const metrics::histogram& of) {
  head(out, name, "histogram", help);
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < of.bounds().size(); ++i) {
    below += of.count_in(i);
    fmt::format_to(std::back_inserter(out), "{}_bucket{{le=\"{}\"}} {}\n", name, of.bounds()[i],
                   below);
  }
  below += of.count_in(of.bounds().size());
  fmt::format_to(std::back_inserter(out),
                 "{0}_bucket{{le=\"+Inf\"}} {1}\n{0}_sum {2}\n{0}_count {1}\n", name, below,
                 of.sum());
}

void roles_of(std::string& out, const lease::report& report) {
  head(out, "tandem_device_role", "gauge", "1 for the role the device is in, 0 for the others.");
  for (const auto& device : report.devices)
    for (const auto role : roles)
      fmt::format_to(
          std::back_inserter(out), "tandem_device_role{{device=\"{}\",role=\"{}\"}} {}\n",
          label(device.held.device), lease::name_of(role), device.held.held_as == role ? 1 : 0);
}

}  // namespace

std::string lease_metrics(const actors::lease_board& board) {
  std::string out;
  const auto report = board.newest();
  if (!report) return out;
  const auto& r = *report;
  using device = lease::device_report;
  using job = lease::job_report;
  const auto number = [](auto n) { return static_cast<double>(n); };
  roles_of(out, r);
  by_device(out, r, "tandem_device_busy_ratio", "gauge",
            "Share of the last second that the device worked on steps of serving.",
            [](const device& d) { return d.busy; });
  by_device(out, r, "tandem_device_moves_total", "counter", "Changes of the device's role.",
            [&](const device& d) { return number(d.moves); });
  single(out, "tandem_lease_moves_total", "counter", "Changes of a device's role, over all.",
         number(r.moves));
  single(out, "tandem_lease_refusals_total", "counter", "Moves that could not be.",
         number(r.refusals));
  histogram(out, "tandem_move_seconds",
            "From the decision of a move to the first piece of work in the new role.",
            board.move_time);
  single(out, "tandem_ttft_p95_seconds", "gauge",
         "Time to first token over the last second, 95th percentile; 0: none.",
         r.service.ttft_ms * 1e-3);
  single(out, "tandem_ttft_target_seconds", "gauge", "What the policy holds it against.",
         number(r.policy.ttft_target_ms) * 1e-3);
  single(out, "tandem_itl_p95_seconds", "gauge",
         "Time between two tokens over the last second, 95th percentile; 0: none.",
         r.service.itl_ms * 1e-3);
  single(out, "tandem_itl_target_seconds", "gauge", "What the policy holds it against.",
         number(r.policy.itl_target_ms) * 1e-3);
  single(out, "tandem_oldest_waiting_seconds", "gauge",
         "How long the oldest request without a first token has waited.",
         r.service.waiting_ms * 1e-3);
  by_job(out, r, "tandem_training_step", "gauge", "Optimizer steps done.",
         [&](const job& j) { return number(j.step); });
  by_job(out, r, "tandem_training_step_count", "gauge", "Optimizer steps that make the job.",
         [&](const job& j) { return number(j.step_count); });
  by_job(out, r, "tandem_training_loss", "gauge", "Loss of the last step.",
         [](const job& j) { return j.loss; });
  by_job(out, r, "tandem_training_tokens_total", "counter",
         "Tokens trained since this process began.",
         [&](const job& j) { return number(j.trained_tokens); });
  by_job(out, r, "tandem_training_working_devices", "gauge", "Devices that train this job now.",
         [&](const job& j) { return number(j.working_devices); });
  return out;
}

}  // namespace tandem::gateway
