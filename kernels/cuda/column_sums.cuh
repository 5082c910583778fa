// Sums over rows, a column at a time, by the slot tree: gradients of norms and biases. A slot's sum
// is one chain in the order of its rows; what a block can do side by side is to bring the terms.
// Its warps lay out tiles of 128 rows by 32 columns, two in turns, and the first one adds the tile
// that is there. Traffic: each term's operands once.
#pragma once

#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/device_math.cuh"

namespace tandem::kernels::cuda {

inline constexpr int column_sum_threads = 256;
inline constexpr int column_sum_rows = 128;
inline constexpr std::int64_t column_sum_slots = 64;  // with room in the workspace

constexpr std::int64_t column_sum_floats(const step_limits& limits) {
  const auto widest =
      limits.widest_input > limits.widest_output ? limits.widest_input : limits.widest_output;
  return limits.training ? column_sum_slots * widest : 0;
}

// sums[slot][column]; term(row, column). Grid: columns in 32, slots.
template <class Term>
__global__ __launch_bounds__(column_sum_threads, 4) void sum_slots(Term term, std::int64_t columns,
                                                                   const row_segment* slots,
                                                                   float* sums) {
  __shared__ float tiles[2][column_sum_rows][32];
  constexpr int warps = column_sum_threads / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t column = std::int64_t{blockIdx.x} * 32 + lane;
  const row_segment slot = slots[blockIdx.y];
  const auto count = static_cast<int>((slot.row_count + column_sum_rows - 1) / column_sum_rows);
  const auto lay_out = [&](int tile) {
    if (tile >= count || column >= columns) return;
#pragma unroll
    for (int i = 0; i < column_sum_rows / warps; ++i) {
      const int row = i * warps + warp;
      const std::int64_t t = std::int64_t{tile} * column_sum_rows + row;
      if (t < slot.row_count) tiles[tile % 2][row][lane] = term(slot.first_row + t, column);
    }
  };
  lay_out(0);
  __syncthreads();
  float sum = 0.0F;
  for (int tile = 0; tile < count; ++tile) {
    lay_out(tile + 1);
    if (warp == 0 && column < columns) {
      const std::int64_t left = slot.row_count - std::int64_t{tile} * column_sum_rows;
      const int rows = left < column_sum_rows ? static_cast<int>(left) : column_sum_rows;
#pragma unroll 8
      for (int row = 0; row < rows; ++row) sum = __fadd_rn(sum, tiles[tile % 2][row][lane]);
    }
    __syncthreads();
  }
  if (warp == 0 && column < columns) sums[blockIdx.y * columns + column] = sum;
}

// One thread: one column. `sums` null: each slot is summed here.
template <class Term>
__global__ void add_slots(Term term, std::int64_t columns, const row_segment* slots,
                          std::int64_t slot_count, const float* sums, float* to) {
  const std::int64_t column = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= columns) return;
  const float sum = tree_sum(slot_count, [&](std::int64_t slot) {
    if (sums != nullptr) return sums[slot * columns + column];
    float of_slot = 0.0F;
    for (std::int64_t t = slots[slot].first_row; t < slots[slot].first_row + slots[slot].row_count;
         ++t)
      of_slot = __fadd_rn(of_slot, term(t, column));
    return of_slot;
  });
  to[column] = __fadd_rn(to[column], sum);
}

// to[column] += the slot tree of term(row, column). `room` has slot_count * columns floats, or is
// null where there is none: the same bits, more slowly.
template <class Term>
void add_column_sums(Term term, std::int64_t columns, const row_segment* slots,
                     std::int64_t slot_count, float* room, float* to, cudaStream_t stream) {
  if (room != nullptr)
    sum_slots<<<dim3(static_cast<unsigned>((columns + 31) / 32), static_cast<unsigned>(slot_count)),
                column_sum_threads, 0, stream>>>(term, columns, slots, room);
  add_slots<<<static_cast<unsigned>((columns + 63) / 64), 64, 0, stream>>>(term, columns, slots,
                                                                           slot_count, room, to);
  launched("sums over rows", slot_count, columns);
}

}  // namespace tandem::kernels::cuda
