// Backward of products for every format of weights: in float32, or rounded where the limits say so
// (rounded_products.cuh). Tiles as in float_tile.cuh; which
// chain a sum is does not depend on how many rows there are.
#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/float_tile.cuh"
#include "kernels/cuda/hopper_products.cuh"
#include "kernels/cuda/products.cuh"
#include "kernels/cuda/rounded_products.cuh"
#include "kernels/cuda/rounding.cuh"
#include "kernels/cuda/slot_program.hpp"
#include "kernels/op_checks.hpp"

#include <algorithm>

namespace tandem::kernels::cuda {
namespace {

// dx's sums over outputs are chains of at most so many tiles, added in their order.
constexpr int input_chunk_tiles = 32;

// --- dx = dy w ---------------------------------------------------------------------------------

struct input_backward {
  rows_in dy;
  bool dy_aligned;
  packed_matrix w;
  std::int64_t tile_stride;
  bool add;
  rows_out dx;
};

// What a thread loads of a step: two quads of dy, eight columns of one output's weights.
struct next_outputs {
  float4 dy[2];
  float w[8];
};

__device__ float4 quad_of(const rows_in& x, bool aligned, std::int64_t row, std::int64_t column) {
  if (row >= x.rows) return {0.0F, 0.0F, 0.0F, 0.0F};
  const float* const from = x.data + row * x.stride;
  if (aligned && column + 4 <= x.columns) return *reinterpret_cast<const float4*>(from + column);
  const auto at = [&](std::int64_t k) { return k < x.columns ? from[k] : 0.0F; };
  return {at(column), at(column + 1), at(column + 2), at(column + 3)};
}

__device__ next_outputs load_outputs(const input_backward& p, std::int64_t tile,
                                     std::int64_t first_row, std::int64_t first_column) {
  next_outputs next;
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int at = thread + i * float_threads;
    next.dy[i] = quad_of(p.dy, p.dy_aligned, first_row + at / 4, tile * tile_outputs + at % 4 * 4);
  }
  const std::int64_t column = first_column + thread % 8 * 8;
  if (column < p.w.columns) {
    load_eight(p.w.format, p.w.data + tile * p.tile_stride, thread / 8, column, p.w.columns,
               next.w);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) next.w[i] = 0.0F;
  }
  return next;
}

__device__ void store_outputs(const next_outputs& next, float_operand& dy, float_operand& w) {
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int at = thread + i * float_threads;
    const float v[4] = {next.dy[i].x, next.dy[i].y, next.dy[i].z, next.dy[i].w};
#pragma unroll
    for (int k = 0; k < 4; ++k) dy[at % 4 * 4 + k][at / 4] = v[k];
  }
  auto* const to = reinterpret_cast<float4*>(&w[thread / 8][thread % 8 * 8]);
  to[0] = {next.w[0], next.w[1], next.w[2], next.w[3]};
  to[1] = {next.w[4], next.w[5], next.w[6], next.w[7]};
}

// A block: 64 rows by 64 columns of dx. Traffic: dy once for each 64 columns, w once for each 64
// rows.
__global__ __launch_bounds__(float_threads) void input_backward_kernel(const input_backward p) {
  __shared__ float_operand dy[2];
  __shared__ float_operand w[2];
  const std::int64_t first_row = std::int64_t{blockIdx.y} * float_tile;
  const std::int64_t first_column = std::int64_t{blockIdx.x} * float_tile;
  const std::int64_t tiles = (p.w.rows + tile_outputs - 1) / tile_outputs;
  float_sums sums;
  float_sums total;
  next_outputs next = load_outputs(p, 0, first_row, first_column);
  int buffer = 0;
#pragma unroll 1
  for (std::int64_t tile = 0; tile < tiles; ++tile) {
    store_outputs(next, dy[buffer], w[buffer]);
    __syncthreads();
    if (tile + 1 < tiles) next = load_outputs(p, tile + 1, first_row, first_column);
    multiply_steps(dy[buffer], w[buffer], sums);
    buffer = 1 - buffer;
    if ((tile + 1) % input_chunk_tiles == 0 || tile + 1 == tiles) {
      add_sums(total, sums);
      sums = float_sums{};
    }
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const std::int64_t row = first_row + float_first_a() + i;
    if (row >= p.dx.rows) break;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const std::int64_t column = first_column + float_first_b() + j;
      if (column >= p.dx.columns) break;
      float* const to = p.dx.data + row * p.dx.stride + column;
      *to = p.add ? __fadd_rn(*to, total.v[i][j]) : total.v[i][j];
    }
  }
}

// --- dw += dy^T x ------------------------------------------------------------------------------

struct weights_backward {
  rows_in dy;
  rows_in x;
  const slot_step* steps;
  std::int32_t step_count;
  std::byte* dw;
  std::int64_t tile_stride;
};

struct next_rows {
  float dy[8];
  float x[8];
};

// Rows [row, end) of both, at most sixteen.
__device__ next_rows load_rows(const weights_backward& p, std::int64_t row, std::int64_t end,
                               std::int64_t first_output, std::int64_t first_column) {
  next_rows next;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * float_threads;
    const std::int64_t t = row + at / float_tile;
    const std::int64_t output = first_output + at % float_tile;
    const std::int64_t column = first_column + at % float_tile;
    next.dy[i] = t < end && output < p.dy.columns ? p.dy.data[t * p.dy.stride + output] : 0.0F;
    next.x[i] = t < end && column < p.x.columns ? p.x.data[t * p.x.stride + column] : 0.0F;
  }
  return next;
}

__device__ void store_rows(const next_rows& next, float_operand& dy, float_operand& x) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * float_threads;
    dy[at / float_tile][at % float_tile] = next.dy[i];
    x[at / float_tile][at % float_tile] = next.x[i];
  }
}

// A thread's 32 sums on the stack of sums that wait for their right half.
__device__ float& waiting(float* stack, int level, int i, int j) {
  return stack[((level * 8 + i) * 4 + j) * float_threads + static_cast<int>(threadIdx.x)];
}

// A block: 64 outputs by 64 columns of dw. Traffic: dy and x once for each 64 of the other.
__global__ __launch_bounds__(float_threads) void weights_backward_kernel(const weights_backward p) {
  __shared__ float_operand dy[2];
  __shared__ float_operand x[2];
  extern __shared__ float stack[];
  const std::int64_t first_column = std::int64_t{blockIdx.x} * float_tile;
  const std::int64_t first_output = std::int64_t{blockIdx.y} * float_tile;
  float_sums sums;
  int depth = 0;
  int buffer = 0;
#pragma unroll 1
  for (std::int32_t step = 0; step < p.step_count; ++step) {
    const slot_step& slot = p.steps[step];
    const std::int64_t end = slot.first_row + slot.row_count;
    if (step > 0) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) waiting(stack, depth, i, j) = sums.v[i][j];
      }
      ++depth;
      sums = float_sums{};
    }
    next_rows next = load_rows(p, slot.first_row, end, first_output, first_column);
#pragma unroll 1
    for (std::int64_t row = slot.first_row; row < end; row += float_steps) {
      store_rows(next, dy[buffer], x[buffer]);
      __syncthreads();
      if (row + float_steps < end)
        next = load_rows(p, row + float_steps, end, first_output, first_column);
      multiply_steps(dy[buffer], x[buffer], sums);
      buffer = 1 - buffer;
    }
#pragma unroll 1
    for (std::int32_t n = 0; n < slot.adds; ++n) {
      --depth;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j)
          sums.v[i][j] = __fadd_rn(waiting(stack, depth, i, j), sums.v[i][j]);
      }
    }
  }
  const std::int64_t output = first_output + float_first_a();
  if (output >= p.dy.columns) return;
  // Eight outputs of one column lie side by side; what pads the last tile stays zero.
  const int there = static_cast<int>(min(std::int64_t{8}, p.dy.columns - output));
  float* const tile = reinterpret_cast<float*>(p.dw + output / tile_outputs * p.tile_stride) +
                      output % tile_outputs;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const std::int64_t column = first_column + float_first_b() + j;
    if (column >= p.x.columns) break;
    float* const to = tile + column * tile_outputs;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i < there) to[i] = __fadd_rn(to[i], sums.v[i][j]);
    }
  }
}

// The same bits for any number of slots, a thread one element: where a tile's stack has no room.
__global__ void weights_backward_alone(const weights_backward p, const row_segment* slots,
                                       std::int64_t slot_count) {
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t output = at / p.x.columns;
  const std::int64_t column = at % p.x.columns;
  if (output >= p.dy.columns) return;
  const float sum = tree_sum(slot_count, [&](std::int32_t i) {
    float of_slot = 0.0F;
    for (std::int64_t t = slots[i].first_row; t < slots[i].first_row + slots[i].row_count; ++t) {
      of_slot = __fmaf_rn(p.dy.data[t * p.dy.stride + output], p.x.data[t * p.x.stride + column],
                          of_slot);
    }
    return of_slot;
  });
  float* const to = reinterpret_cast<float*>(p.dw + output / tile_outputs * p.tile_stride) +
                    column * tile_outputs + output % tile_outputs;
  *to = __fadd_rn(*to, sum);
}

// A term of a bias' gradient.
struct bias_term {
  rows_in dy;
  __device__ float operator()(std::int64_t row, std::int64_t column) const {
    return dy.data[row * dy.stride + column];
  }
};

unsigned tiles_across(std::int64_t count) {
  return static_cast<unsigned>((count + float_tile - 1) / float_tile);
}

}  // namespace

void cuda_device::linear_backward_input(rows_in dy_TY, const packed_matrix& w_YX, bool add,
                                        rows_out dx_TX) {
  if (dy_TY.rows == 0 || dx_TX.columns == 0) return;
  require(checks::linear_backward_input(limits_, dy_TY, w_YX, dx_TX));
  if (rounds()) {
    if (wgmma_)
      hopper_product_backward(as_rounded(dy_TY), as_rounded_rows(w_YX), add, dx_TX,
                              multiprocessors_, stream_);
    else
      rounded_product_backward(as_rounded(dy_TY), as_rounded(w_YX), add, dx_TX, stream_);
    end_scratch();
    return;
  }
  const input_backward p{
      dy_TY, loads_of_four(dy_TY), w_YX, tile_bytes(w_YX.format, w_YX.columns), add, dx_TX};
  const dim3 grid(tiles_across(dx_TX.columns), tiles_across(dx_TX.rows));
  input_backward_kernel<<<grid, float_threads, 0, stream_>>>(p);
  launched("linear_backward_input", dx_TX.rows, dx_TX.columns);
}

void cuda_device::linear_backward_weights(rows_in dy_TY, rows_in x_TX,
                                          std::span<const row_segment> slots,
                                          const packed_matrix& dw_YX) {
  require(checks::linear_backward_weights(limits_, dy_TY, x_TX, slots, dw_YX));
  if (dy_TY.rows == 0 || slots.empty() || dw_YX.rows == 0) return;
  const slot_program program = slot_program_of(slots);
  if (rounds() && wgmma_ && can_add_on_hopper(program)) {
    const slot_step* const steps = ring_.upload(std::span<const slot_step>(program.steps));
    auto* const room = scratch<float>(
        static_cast<std::int64_t>(hopper_slot_room(multiprocessors_) / sizeof(float)));
    hopper_weights_backward(as_rounded(dy_TY), as_rounded(x_TX), steps, program, dw_YX, room,
                            multiprocessors_, stream_);
    end_scratch();
    return;
  }
  if (rounds() && can_round_weights_backward(program, gpu_)) {
    const slot_step* const steps = ring_.upload(std::span<const slot_step>(program.steps));
    rounded_weights_backward(as_rounded(dy_TY), as_rounded(x_TX), steps, program, dw_YX, gpu_,
                             stream_);
    end_scratch();
    return;
  }
  const std::int64_t stride = tile_bytes(weight_format::f32, dw_YX.columns);
  weights_backward p{dy_TY,      x_TX,  nullptr, static_cast<std::int32_t>(program.steps.size()),
                     dw_YX.data, stride};
  constexpr int level_bytes = float_tile * float_tile * static_cast<int>(sizeof(float));
  constexpr int operand_bytes = 4 * static_cast<int>(sizeof(float_operand));
  int most = 0;
  check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, gpu_),
        "asking for the shared memory");
  if (program.depth > (most - operand_bytes) / level_bytes) {
    const std::int64_t count = dw_YX.rows * dw_YX.columns;
    weights_backward_alone<<<static_cast<unsigned>((count + 127) / 128), 128, 0, stream_>>>(
        p, ring_.upload(slots), std::ssize(slots));
    launched("linear_backward_weights", dw_YX.rows, dw_YX.columns);
    return;
  }
  p.steps = ring_.upload(std::span<const slot_step>(program.steps));
  const int shared = program.depth * level_bytes;
  check(cudaFuncSetAttribute(weights_backward_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             shared),
        "room for the slots' sums", 1, shared);
  const dim3 grid(tiles_across(dw_YX.columns), tiles_across(dw_YX.rows));
  weights_backward_kernel<<<grid, float_threads, static_cast<std::size_t>(shared), stream_>>>(p);
  launched("linear_backward_weights", dw_YX.rows, dw_YX.columns);
}

void cuda_device::bias_backward(rows_in dy_TY, std::span<const row_segment> slots, float* db_Y) {
  require(checks::bias_backward(limits_, dy_TY, slots));
  if (slots.empty() || dy_TY.columns == 0) return;
  add_column_sums(bias_term{dy_TY}, dy_TY.columns, ring_.upload(slots), std::ssize(slots),
                  column_sum_room(std::ssize(slots), dy_TY.columns), db_Y, stream_);
  end_scratch();
}

}  // namespace tandem::kernels::cuda
