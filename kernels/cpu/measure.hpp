// How fast this machine multiplies: each kernel beside the peak it could reach, measured in the
// same run. For `tandem bench kernels` and bench_kernels.
#pragma once

#include "kernels/cpu/cpu_backend.hpp"

#include <string>
#include <vector>

namespace tandem::kernels::cpu {

struct kernel_measurement {
  std::string instruction_set;
  std::string kernel;         // "peak int8", "read", "linear q4_1", "attention f16", ...
  std::int64_t rows = 0;      // T; 0 for a peak
  std::int64_t inputs = 0;    // K; positions seen for attention
  std::int64_t outputs = 0;   // N; width of the queries for attention
  double microseconds = 0.0;  // of one call, the best of many
  double giga_operations_per_second = 0.0;
  double gigabytes_per_second = 0.0;  // of weights or keys and values
  double share_of_limit = 0.0;        // the nearer limit's time over the time taken
  std::string limit;                  // "int8", "float", "memory"
};

// Peaks first, then every format over a small model's shapes with weights that lie in memory, not
// in a cache. `quick`: one shape and two heights, under a second for one instruction set. Must be
// called from a thread that may be pinned to the first core.
std::vector<kernel_measurement> measure_kernels(const cpu_options& options, bool quick);

}  // namespace tandem::kernels::cpu
