// Latencies of the last second or so: times to first token and gaps between tokens, as samples with
// the time they were taken at. Bounded: of too many the oldest go.
#pragma once

#include "runtime/serve/request.hpp"

#include <cstddef>
#include <deque>

namespace tandem::serve {

class latency_window {
 public:
  static constexpr time_ns span = 1'000'000'000;
  static constexpr std::size_t samples_max = 4096;  // of each kind

  void first_token(time_ns now, time_ns waited);
  void gap(time_ns now, time_ns between);

  struct view {
    int first_tokens = 0;
    double first_token_ms = 0.0;  // 95th percentile, nearest rank; 0: none
    double gap_ms = 0.0;          // likewise
    bool operator==(const view&) const = default;
  };
  // Of samples not older than `span`.
  view over(time_ns now);

 private:
  struct sample {
    time_ns at = 0;
    time_ns value = 0;
  };
  static void add(std::deque<sample>& to, sample what);
  static double percentile(std::deque<sample>& of, time_ns now);

  std::deque<sample> first_tokens_;
  std::deque<sample> gaps_;
};

}  // namespace tandem::serve
