// The order in which the numbers of ranks are added (collective.hpp), for host and device.
#pragma once

#include <cstdint>

namespace tandem::kernels {

inline constexpr int most_ranks = 64;

// sum(0, ranks) of first[r * stride], sum(b, e) = sum(b, (b+e)/2) + sum((b+e)/2, e).
constexpr float rank_sum(const float* first, int ranks, std::int64_t stride) {
  // Halves still to be added to, the outermost first.
  struct half {
    int begin = 0;
    int end = 0;
    float sum = 0.0F;  // of the half before it, once that is known
    bool known = false;
  };
  half open[8];  // log2(most_ranks) and two
  int depth = 0;
  int begin = 0;
  int end = ranks;
  for (;;) {
    while (end - begin > 1) {
      const int middle = (begin + end) / 2;
      open[depth++] = {middle, end, 0.0F, false};
      end = middle;
    }
    float sum = first[begin * stride];
    while (depth > 0 && open[depth - 1].known) sum = open[--depth].sum + sum;
    if (depth == 0) return sum;
    half& next = open[depth - 1];
    next.sum = sum;
    next.known = true;
    begin = next.begin;
    end = next.end;
  }
}

}  // namespace tandem::kernels
