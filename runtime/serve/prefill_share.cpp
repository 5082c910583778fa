#include "runtime/serve/prefill_share.hpp"

#include "kernels/ensure.hpp"

#include <algorithm>
#include <numeric>

namespace tandem::serve {
namespace {

// One priority class; returns what is left of the budget.
int share_among_equals(std::span<const reading> sequences, std::span<int> rows, int budget) {
  rows[0] = std::min(sequences[0].remaining, budget - budget / 2);
  budget -= rows[0];
  std::vector<std::size_t> by_remaining(sequences.size());
  std::iota(by_remaining.begin(), by_remaining.end(), std::size_t{0});
  std::stable_sort(by_remaining.begin(), by_remaining.end(), [&](std::size_t a, std::size_t b) {
    return sequences[a].remaining < sequences[b].remaining;
  });
  for (const std::size_t i : by_remaining) {
    const int more = std::min(sequences[i].remaining - rows[i], budget);
    rows[i] += more;
    budget -= more;
  }
  return budget;
}

}  // namespace

std::vector<int> share_rows(std::span<const reading> sequences, int budget) {
  ensure(budget >= 0, "a negative number of rows to share");
  std::vector<int> rows(sequences.size(), 0);
  for (std::size_t begin = 0; begin < sequences.size() && budget > 0;) {
    std::size_t end = begin + 1;
    while (end < sequences.size() && sequences[end].priority == sequences[begin].priority) ++end;
    const std::size_t count = end - begin;
    budget = share_among_equals(sequences.subspan(begin, count),
                                std::span(rows).subspan(begin, count), budget);
    begin = end;
  }
  return rows;
}

}  // namespace tandem::serve
