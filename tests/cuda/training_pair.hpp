// What tests of training's products on a GPU begin with.
#pragma once

#include "tests/cuda/pair.hpp"

#include <algorithm>
#include <vector>

namespace tandem::kernels::test {

struct shape {
  std::int64_t T, X, Y;
};
inline const std::vector<shape> odd_shapes{{1, 1, 1},      {3, 31, 33},    {33, 17, 31},
                                           {64, 48, 96},   {31, 100, 650}, {5, 161, 1300},
                                           {150, 96, 200}, {300, 576, 192}};

inline std::vector<row_segment> slots_of(std::int64_t rows,
                                         const std::vector<std::int64_t>& counts) {
  std::vector<row_segment> slots;
  std::int64_t first = 0;
  for (const std::int64_t count : counts) {
    slots.push_back({first, std::min(count, rows - first)});
    first += slots.back().row_count;
  }
  slots.back().row_count += rows - first;
  return slots;
}

// Rows with strangers behind them.
struct slice {
  floats values;
  std::int64_t rows, columns, stride;

  slice(randoms& random, std::int64_t r, std::int64_t c, std::int64_t more = 5)
      : values(random.values(r * (c + more))), rows(r), columns(c), stride(c + more) {}
  rows_in on_cpu() const { return {values.data(), rows, columns, stride}; }
  rows_in on(gpu_device& gpu) const { return {gpu.put(values), rows, columns, stride}; }
};

inline floats sum_of(const floats& a, const floats& b) {
  floats sum;
  for (std::size_t i = 0; i < a.size(); ++i) sum.push_back(a[i] + b[i]);
  return sum;
}

// What a weight's gradient that held `held` becomes by these slots of rows of dy and x.
inline floats weights_backward_of(gpu_device& gpu, const rows_in& dy, const rows_in& x,
                                  std::span<const row_segment> slots, const floats& held) {
  std::vector<row_segment> mine(slots.begin(), slots.end());
  const std::int64_t first = mine[0].first_row;
  std::int64_t rows = 0;
  for (row_segment& slot : mine) {
    slot.first_row -= first;
    rows += slot.row_count;
  }
  const packed_matrix dw = gpu.packed(weight_format::f32, dy.columns, x.columns, held);
  gpu->linear_backward_weights({dy.row(first), rows, dy.columns, dy.stride},
                               {x.row(first), rows, x.columns, x.stride}, mine, dw);
  return gpu.unpacked(dw);
}

}  // namespace tandem::kernels::test
