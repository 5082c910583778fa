#include "runtime/serve/step_pace.hpp"

#include <algorithm>

namespace tandem::serve {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr milliseconds stall{10'000};
constexpr std::int64_t parameters_a_millisecond = 10'000;
constexpr std::int64_t factor = 20;

}  // namespace

milliseconds step_patience_min(std::int64_t parameters) {
  return stall + milliseconds(std::max<std::int64_t>(parameters, 0) / parameters_a_millisecond);
}

void step_pace::add(int rows, nanoseconds took) {
  recent_[count_++ % kept] = {std::max(rows, 1), std::max(took, nanoseconds(0))};
}

milliseconds step_pace::patience(int rows, milliseconds least, milliseconds most) const {
  if (count_ == 0) return most;
  nanoseconds slowest_row{};
  for (std::size_t at = 0; at < std::min(count_, kept); ++at)
    slowest_row = std::max(slowest_row, recent_[at].took / recent_[at].rows);
  // In milliseconds: years do not fit into nanoseconds twenty times.
  const auto usual = std::max(duration_cast<milliseconds>(slowest()),
                              duration_cast<milliseconds>(slowest_row) * std::max(rows, 1));
  return std::min(most, std::max(least, factor * usual));
}

nanoseconds step_pace::slowest() const {
  nanoseconds slowest{};
  for (std::size_t at = 0; at < std::min(count_, kept); ++at)
    slowest = std::max(slowest, recent_[at].took);
  return slowest;
}

}  // namespace tandem::serve
