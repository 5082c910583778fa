// How long the progress thread looks for work before it sleeps. To be woken costs several times
// what looking does, so it looks as long as work has lately come soon, and not at all where it
// comes rarely or where others want the core: there a yield costs a time slice, a hundred times
// what sleeping does.
#pragma once

#include <algorithm>
#include <chrono>

namespace tandem::transport {

class spin_window {
 public:
  using clock = std::chrono::steady_clock;
  using duration = clock::duration;

  // `most` is the longest it ever looks; 0: never.
  explicit spin_window(duration most) : most_(most) {}

  // Whether to look once more, after nothing was to do for so long; `sure`: for that long something
  // is known to come.
  bool open(clock::time_point now, duration idle, duration sure = {}) const {
    return most_ > duration::zero() && idle < std::max(now_, sure) && now >= closed_till_;
  }

  // There was something to do again after so long, looking and sleeping together.
  void worked_after(duration idle) {
    now_ = idle <= most_ ? most_ : duration::zero();
    if (idle <= most_) rest_ = std::max(rest_ - rest_ / 8, shortest_rest);
  }

  // Looking once gave the core away, and it came back after so long. The more often, the longer the
  // rest.
  void yielded(clock::time_point now, duration took) {
    if (took <= crowded_from) return;
    closed_till_ = now + rest_;
    rest_ = std::min(rest_ * 2, longest_rest);
  }

 private:
  static constexpr duration crowded_from = std::chrono::microseconds(300);
  static constexpr duration shortest_rest = std::chrono::milliseconds(5);
  static constexpr duration longest_rest = std::chrono::milliseconds(640);

  const duration most_;
  duration now_{};
  duration rest_ = shortest_rest;
  clock::time_point closed_till_;
};

}  // namespace tandem::transport
