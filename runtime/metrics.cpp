#include "runtime/metrics.hpp"

#include "kernels/ensure.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

namespace tandem::metrics {
namespace {

void add_to(std::atomic<double>& total, double amount) {
  double before = total.load(std::memory_order_relaxed);
  while (!total.compare_exchange_weak(before, before + amount, std::memory_order_relaxed)) {
  }
}

bool is_name(std::string_view name, bool colons) {
  const auto letter = [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (colons && c == ':');
  };
  return !name.empty() && letter(name[0]) && std::all_of(name.begin(), name.end(), [&](char c) {
    return letter(c) || (c >= '0' && c <= '9');
  });
}

// Backslash and newline are written as escapes everywhere, quotes in label values only.
std::string escaped(std::string_view text, bool quotes) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
    } else {
      if (c == '\\' || (quotes && c == '"')) out += '\\';
      out += c;
    }
  }
  return out;
}

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  if (value == std::floor(value) && std::abs(value) < 1e15) {
    return fmt::format("{}", static_cast<std::int64_t>(value));
  }
  return fmt::format("{}", value);
}

std::string written(const labels& of) {
  std::string out;
  for (const auto& [key, value] : of) {
    ensure(is_name(key, false), "a metric's label is not a name");
    if (!out.empty()) out += ',';
    out += fmt::format("{}=\"{}\"", key, escaped(value, true));
  }
  return out;
}

void write_line(std::string& out, std::string_view name, std::string_view labels_text,
                std::string_view value) {
  out += name;
  if (!labels_text.empty()) fmt::format_to(std::back_inserter(out), "{{{}}}", labels_text);
  out += ' ';
  out += value;
  out += '\n';
}

void write_histogram(std::string& out, std::string_view name, std::string_view labels_text,
                     const histogram& h) {
  const std::string_view comma = labels_text.empty() ? "" : ",";
  std::uint64_t up_to = 0;
  for (std::size_t i = 0; i <= h.bounds().size(); ++i) {
    up_to += h.count_in(i);
    const std::string bound = i < h.bounds().size() ? number(h.bounds()[i]) : "+Inf";
    write_line(out, fmt::format("{}_bucket", name),
               fmt::format("{}{}le=\"{}\"", labels_text, comma, bound), fmt::format("{}", up_to));
  }
  write_line(out, fmt::format("{}_sum", name), labels_text, number(h.sum()));
  write_line(out, fmt::format("{}_count", name), labels_text, fmt::format("{}", up_to));
}

}  // namespace

void counter::add(double amount) {
  ensure(amount >= 0.0, "a counter only grows");
  add_to(value_, amount);
}
void counter::raise_to(double total) {
  double before = value_.load(std::memory_order_relaxed);
  while (before < total &&
         !value_.compare_exchange_weak(before, total, std::memory_order_relaxed)) {
  }
}
void gauge::add(double amount) { add_to(value_, amount); }

histogram::histogram(std::span<const double> bounds)
    : bounds_(bounds.begin(), bounds.end()), counts_(bounds.size() + 1) {
  ensure(
      std::adjacent_find(bounds_.begin(), bounds_.end(), std::greater_equal<>()) == bounds_.end(),
      "a histogram's bounds do not grow");
}
void histogram::observe(double value) {
  const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[static_cast<std::size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
  add_to(sum_, value);
}
std::uint64_t histogram::count_in(std::size_t bucket) const {
  return counts_[bucket].load(std::memory_order_relaxed);
}

std::span<const double> latency_bounds() {
  static constexpr std::array bounds{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,  0.25,
                                     0.5,   1.0,    2.5,   5.0,  10.0,  30.0, 60.0, 120.0};
  return bounds;
}
std::span<const double> token_latency_bounds() {
  static constexpr std::array bounds{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                     0.05,   0.1,     0.25,   0.5,   1.0,    2.5,   10.0};
  return bounds;
}
std::span<const double> token_count_bounds() {
  static constexpr std::array bounds{1.0,    2.0,    4.0,     8.0,     16.0,    32.0,
                                     64.0,   128.0,  256.0,   512.0,   1024.0,  2048.0,
                                     4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131072.0};
  return bounds;
}

registry::family& registry::family_of(std::string_view name, std::string_view help,
                                      std::string_view kind) {
  ensure(is_name(name, true), "a metric's name is not one");
  const auto found = families_.find(name);
  if (found != families_.end()) {
    ensure(found->second.kind == kind, "one metric name for two kinds of number");
    return found->second;
  }
  family& made = families_[std::string(name)];
  made.kind = kind;
  made.help = help;
  return made;
}

counter& registry::add_counter(std::string_view name, std::string_view help, const labels& of) {
  ensure(name.ends_with("_total"), "a counter's name ends in _total");
  const std::lock_guard lock(mutex_);
  auto& slot = family_of(name, help, "counter").counters[written(of)];
  if (!slot) slot = std::make_unique<counter>();
  return *slot;
}
gauge& registry::add_gauge(std::string_view name, std::string_view help, const labels& of) {
  const std::lock_guard lock(mutex_);
  auto& slot = family_of(name, help, "gauge").gauges[written(of)];
  if (!slot) slot = std::make_unique<gauge>();
  return *slot;
}
histogram& registry::add_histogram(std::string_view name, std::string_view help,
                                   std::span<const double> bounds, const labels& of) {
  const std::lock_guard lock(mutex_);
  auto& slot = family_of(name, help, "histogram").histograms[written(of)];
  if (!slot) slot = std::make_unique<histogram>(bounds);
  return *slot;
}

std::string registry::text() const {
  const std::lock_guard lock(mutex_);
  std::string out;
  for (const auto& [name, f] : families_) {
    fmt::format_to(std::back_inserter(out), "# HELP {} {}\n# TYPE {} {}\n", name,
                   escaped(f.help, false), name, f.kind);
    for (const auto& [of, c] : f.counters) write_line(out, name, of, number(c->value()));
    for (const auto& [of, g] : f.gauges) write_line(out, name, of, number(g->value()));
    for (const auto& [of, h] : f.histograms) write_histogram(out, name, of, *h);
  }
  return out;
}

}  // namespace tandem::metrics
