#include "gateway/command/loss_curve.hpp"

#include "gateway/command/json_view.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace tandem::gateway::command {
namespace {

void add(std::vector<loss_point>& points, double step, const std::optional<double>& loss) {
  while (!points.empty() && points.back().step >= step) points.pop_back();
  if (loss) points.push_back({step, *loss});
}

// The smallest of 1, 2, 5 times a power of ten with at most `count_max` multiples in the range.
double tick_distance(double range, int count_max) {
  const double least = range / std::max(count_max, 1);
  const double power = std::pow(10.0, std::floor(std::log10(least)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= least * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

void set_ticks(axis& a, int count_max, bool whole) {
  double distance = tick_distance(a.high - a.low, count_max);
  if (whole) distance = std::max(distance, 1.0);
  a.decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(distance) - 1e-9)), 0, 12);
  const double first = std::ceil(a.low / distance - 1e-9);
  for (int i = 0; i <= count_max; ++i) {
    const double tick = (first + i) * distance;
    if (tick > a.high + 1e-9 * distance) break;
    a.ticks.push_back(tick);
  }
}

template <class Get>
std::pair<double, double> range_of(const loss_curve& curve, Get get) {
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  for (const auto* points : {&curve.train, &curve.valid}) {
    for (const loss_point& point : *points) {
      low = std::min(low, get(point));
      high = std::max(high, get(point));
    }
  }
  return {low, high};
}

}  // namespace

loss_curve curve_from(const std::vector<job_event>& events) {
  loss_curve curve;
  for (const job_event& event : events) {
    const auto step = number(member(event.data, "step"));
    if (!event.is_metrics || !step) continue;
    add(curve.train, *step, number(member(event.data, "train_loss")));
    add(curve.valid, *step, number(member(event.data, "valid_loss")));
  }
  return curve;
}

double axis::share(double x) const { return std::clamp((x - low) / (high - low), 0.0, 1.0); }

std::string axis::label(double tick) const {
  const std::string text = fmt::format("{:.{}f}", tick, decimals);
  return text.find_first_not_of("-0.") == std::string::npos && text.starts_with('-')
             ? text.substr(1)
             : text;
}

axis step_axis(const loss_curve& curve, int count_max) {
  const auto [first, last] = range_of(curve, [](const loss_point& p) { return p.step; });
  axis a;
  a.low = first;
  a.high = last > first ? last : first + 1;
  set_ticks(a, count_max, true);
  return a;
}

axis loss_axis(const loss_curve& curve, int count_max) {
  const auto [low, high] = range_of(curve, [](const loss_point& p) { return p.loss; });
  const double range = high - low;
  const double margin = range > 0 ? 0.04 * range : std::max(0.05 * std::abs(high), 1e-6);
  axis a;
  a.low = low >= 0 ? std::max(low - margin, 0.0) : low - margin;  // a loss is seldom below 0
  a.high = high + margin;
  set_ticks(a, count_max, false);
  return a;
}

}  // namespace tandem::gateway::command
