#include "runtime/serve/latency_window.hpp"

#include <algorithm>
#include <vector>

namespace tandem::serve {

void latency_window::first_token(time_ns now, time_ns waited) { add(first_tokens_, {now, waited}); }
void latency_window::gap(time_ns now, time_ns between) { add(gaps_, {now, between}); }

latency_window::view latency_window::over(time_ns now) {
  view made;
  made.first_token_ms = percentile(first_tokens_, now);
  made.first_tokens = static_cast<int>(first_tokens_.size());
  made.gap_ms = percentile(gaps_, now);
  return made;
}

void latency_window::add(std::deque<sample>& to, sample what) {
  if (to.size() == samples_max) to.pop_front();
  to.push_back(what);
}

double latency_window::percentile(std::deque<sample>& of, time_ns now) {
  while (!of.empty() && now - of.front().at > span) of.pop_front();
  if (of.empty()) return 0.0;
  std::vector<time_ns> values;
  values.reserve(of.size());
  for (const auto& one : of) values.push_back(one.value);
  const auto rank = (values.size() * 95 + 99) / 100 - 1;
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(rank);
  std::nth_element(values.begin(), at, values.end());
  return static_cast<double>(*at) / 1e6;
}

}  // namespace tandem::serve
