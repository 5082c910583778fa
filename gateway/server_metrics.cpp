#include "gateway/server_metrics.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace tandem::gateway {

namespace {

// Methods are labels, so a client must not be able to make up new ones. What is returned lives for
// ever.
std::string_view known_method(std::string_view method) {
  for (const std::string_view known :
       {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
    if (method == known) return known;
  return "other";
}

std::string_view route_label(const route* matched) {
  return matched == nullptr ? std::string_view("unmatched") : std::string_view(matched->path);
}

void metric_head(std::string& text, std::string_view name, std::string_view type,
                 std::string_view help) {
  fmt::format_to(std::back_inserter(text), "# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
}

void single(std::string& text, std::string_view name, std::string_view type, std::string_view help,
            std::uint64_t value) {
  metric_head(text, name, type, help);
  fmt::format_to(std::back_inserter(text), "{} {}\n", name, value);
}

}  // namespace

void server_metrics::record(const route* matched, std::string_view method, int status,
                            double seconds) {
  const auto bucket =
      std::lower_bound(bounds_s.begin(), bounds_s.end(), seconds) - bounds_s.begin();
  const std::string_view label = route_label(matched);
  const std::lock_guard lock(mutex_);
  ++requests_[{label, known_method(method), status}];
  histogram& duration = durations_[label];
  ++duration.counts[static_cast<std::size_t>(bucket)];
  duration.sum_s += seconds;
}

std::string server_metrics::text(const server_counts& counts) const {
  std::string text;
  const auto out = std::back_inserter(text);
  single(text, "tandem_http_connections", "gauge", "Open connections.", counts.connections_open);
  single(text, "tandem_http_connections_total", "counter", "Connections accepted.",
         counts.connections_total);
  single(text, "tandem_http_connections_refused_total", "counter",
         "Connections refused because server.max_connections were open.",
         counts.connections_refused);
  single(text, "tandem_http_requests_active", "gauge", "Requests not answered to their end.",
         counts.requests_active);
  single(text, "tandem_http_clients_gone_total", "counter",
         "Clients that left, or were cut off, before their answer's end.", counts.clients_gone);

  const std::lock_guard lock(mutex_);
  metric_head(text, "tandem_http_requests_total", "counter",
              "Requests by route, method and status; 499: the client left first.");
  for (const auto& [key, count] : requests_) {
    const auto& [label, method, status] = key;
    fmt::format_to(out,
                   "tandem_http_requests_total{{route=\"{}\",method=\"{}\",status=\"{}\"}} {}\n",
                   label, method, status, count);
  }
  constexpr std::string_view duration_name = "tandem_http_request_duration_seconds";
  metric_head(text, duration_name, "histogram", "From a request's last byte to its answer's last.");
  for (const auto& [label, duration] : durations_) {
    std::uint64_t below = 0;
    for (std::size_t index = 0; index < bounds_s.size(); ++index) {
      below += duration.counts[index];
      fmt::format_to(out, "{}_bucket{{route=\"{}\",le=\"{}\"}} {}\n", duration_name, label,
                     bounds_s[index], below);
    }
    below += duration.counts.back();
    fmt::format_to(out, "{}_bucket{{route=\"{}\",le=\"+Inf\"}} {}\n", duration_name, label, below);
    fmt::format_to(out, "{}_sum{{route=\"{}\"}} {}\n", duration_name, label, duration.sum_s);
    fmt::format_to(out, "{}_count{{route=\"{}\"}} {}\n", duration_name, label, below);
  }
  return text;
}

}  // namespace tandem::gateway
