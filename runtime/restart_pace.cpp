#include "runtime/restart_pace.hpp"

#include <algorithm>

namespace tandem {
namespace {

constexpr std::chrono::nanoseconds forgives_one = std::chrono::seconds(3);
constexpr int doublings_max = 6;  // of the pause, however many restarts are allowed

}  // namespace

std::optional<std::chrono::milliseconds> restart_pace::died(std::chrono::nanoseconds lived) {
  to_live_ -= std::min(lived, to_live_);
  const int before = restarts();
  if (before >= restarts_max_) return std::nullopt;
  to_live_ += forgives_one;
  return first_pause_ * (1 << std::min(before, doublings_max));
}

int restart_pace::restarts() const {
  return static_cast<int>((to_live_ + forgives_one / 2) / forgives_one);
}

}  // namespace tandem
