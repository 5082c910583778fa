// Which queries of a step each thread attends to. Pure arithmetic: a thread's share is a contiguous
// piece of the step's work, counted in positions read, so one long sequence beside many short ones
// is cut where the work is, not where the rows are.
#pragma once

#include "kernels/backend.hpp"

namespace tandem::kernels::cpu {

// Consecutive queries of one span that share a key head. Query i is row i / G, head i % G of the
// group, where G queries share a key head.
struct query_run {
  std::int32_t span = 0;
  std::int32_t key_head = 0;
  std::int64_t first_query = 0;
  std::int32_t count = 0;
};

struct attention_split {
  std::span<const attention_span> spans;
  std::int32_t key_heads = 1;
  std::int32_t queries_per_key_head = 1;
  std::int32_t window = 0;
  std::int32_t longest_run = 1;

  // Visits the runs of one of `threads` shares, in order.
  void visit(int thread, int threads, function_ref<void(const query_run&)> f) const;

 private:
  std::int64_t cost_of(const attention_span& span, std::int32_t row) const;
};

}  // namespace tandem::kernels::cpu
