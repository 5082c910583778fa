// Products of training on the tensor cores: what is multiplied is rounded to bfloat16, sums are
// float32. All three are one kernel over tiles of the result; what differs is which of the
// operands' sides the sum runs along. A sum's chain is along that side in its order, whatever the
// tile, so that a row's bits do not depend on how many rows there are; of weights' gradients each
// slot's chain begins anew and the slots meet in their tree.
#pragma once

#include "kernels/cuda/slot_program.hpp"
#include "kernels/cuda/weights.cuh"

#include <cuda_runtime_api.h>

namespace tandem::kernels::cuda {

// Row-major, columns padded with zeros to whole 32.
struct rounded_rows {
  const std::byte* data;
  std::int64_t rows;
  std::int64_t columns;
};
// Tiles as float32 weights have them, an even number: [tile][column][16 outputs].
struct rounded_matrix {
  const std::byte* data;
  std::int64_t tiles;
  std::int64_t columns;
};

constexpr std::int64_t whole_32(std::int64_t n) { return (n + 31) / 32 * 32; }
constexpr std::int64_t rounded_bytes(std::int64_t rows, std::int64_t columns) {
  return rows * whole_32(columns) * 2;
}

// `room` has rounded_bytes, of a matrix's rows in whole 32, on a line of 256.
rounded_rows round_rows(rows_in x, std::byte* room, cudaStream_t stream);
// The same weights as rows, with those that pad their last tiles.
rounded_rows round_matrix_rows(const packed_matrix& w, std::byte* room, cudaStream_t stream);
rounded_matrix round_matrix(const packed_matrix& w, std::byte* room, cudaStream_t stream);

// y = x w^T + bias, or y += ... when `add`.
void rounded_product(const rounded_rows& x_TX, const rounded_matrix& w_YX, const float* bias_Y,
                     bool add, rows_out y_TY, cudaStream_t stream);
// dx = dy w, or dx += ... when `add`.
void rounded_product_backward(const rounded_rows& dy_TY, const rounded_matrix& w_YX, bool add,
                              rows_out dx_TX, cudaStream_t stream);
// Whether a block has room for so many sums that wait: up to 64 slots where it has 136 KiB of
// shared memory (8.0, 9.0, 10.x), 8 where it has 99 (8.6, 8.9).
bool can_round_weights_backward(const slot_program& program, int gpu);
// dw += dy^T x by the slot tree, where it can; `steps` is the program's, on the device.
void rounded_weights_backward(const rounded_rows& dy_TY, const rounded_rows& x_TX,
                              const slot_step* steps, const slot_program& program,
                              const packed_matrix& dw_YX, int gpu, cudaStream_t stream);

}  // namespace tandem::kernels::cuda
