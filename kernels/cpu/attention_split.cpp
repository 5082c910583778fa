#include "kernels/cpu/attention_split.hpp"

#include <algorithm>

namespace tandem::kernels::cpu {

// Positions read, and what a query costs besides.
std::int64_t attention_split::cost_of(const attention_span& span, std::int32_t row) const {
  constexpr std::int64_t fixed_positions = 16;
  const std::int64_t visible = std::int64_t{span.first_position} + row + 1;
  return fixed_positions + (window > 0 ? std::min<std::int64_t>(visible, window) : visible);
}

void attention_split::visit(int thread, int threads, function_ref<void(const query_run&)> f) const {
  std::int64_t total = 0;
  for (const attention_span& span : spans) {
    for (std::int32_t row = 0; row < span.row_count; ++row) total += cost_of(span, row);
  }
  total *= std::int64_t{key_heads} * queries_per_key_head;
  const std::int64_t begin = total * thread / threads;
  const std::int64_t end = total * (thread + 1) / threads;

  std::int64_t before = 0;  // the cost of all queries in front of this one
  for (std::size_t s = 0; s < spans.size() && before < end; ++s) {
    for (std::int32_t g = 0; g < key_heads && before < end; ++g) {
      query_run run{static_cast<std::int32_t>(s), g, 0, 0};
      std::int64_t query = 0;
      for (std::int32_t row = 0; row < spans[s].row_count; ++row) {
        const std::int64_t cost = cost_of(spans[s], row);
        for (std::int32_t head = 0; head < queries_per_key_head; ++head, ++query, before += cost) {
          if (before < begin || before >= end) continue;
          if (run.count == 0) run.first_query = query;
          if (++run.count < longest_run) continue;
          f(run);
          run.count = 0;
        }
      }
      if (run.count > 0) f(run);
    }
  }
}

}  // namespace tandem::kernels::cpu
