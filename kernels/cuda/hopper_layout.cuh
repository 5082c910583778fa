// How rows lie in memory for wgmma when weights come out of registers (hopper_rows.cu), and the
// kernels that lay them out. Traffic: rows read once in float32, written once in sixteen bits.
#pragma once

#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/rounding.cuh"
#include "kernels/cuda/row_loads.cuh"

namespace tandem::kernels::cuda {

// Sixteen bytes of a row's group as wgmma's second operand has them. Of the sixteen places of a
// step the first eight are columns 8t, 8t + 1 of each quarter t, then come 8t + 2, 8t + 3; the
// second step has those four further. Lines of 64 bytes are swizzled by their address.
struct laid_out {
  std::int64_t rows;  // whole sixteens
  std::int64_t groups;
  uint4* out;

  // value(column) is zero behind the last one.
  template <bool Half, class Value>
  __device__ void put(std::int64_t row, std::int64_t group, int piece, const Value& value) const {
    float v[8];
    const std::int64_t first = group * 32 + piece / 2 * 4 + piece % 2 * 2;
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = value(first + i / 2 * 8 + i % 2);
    const int place = piece ^ static_cast<int>(row / 2 % 4);
    out[(group * rows + row) * 4 + place] = Half ? eight_halves(v) : eight_bf16(v);
  }
};

template <bool Half>
__global__ void lay_out_rows(rows_in x, laid_out to) {
  wait_for_previous();
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t group = at / 4 % to.groups;
  const std::int64_t row = at / 4 / to.groups;
  if (row >= to.rows) return;
  const bool there = row < x.rows;
  const float* const from = x.data + (there ? row * x.stride : 0);
  to.put<Half>(row, group, static_cast<int>(at % 4), [&](std::int64_t column) {
    return there && column < x.columns ? from[column] : 0.0F;
  });
}

// A block a row, which is normed as rms_norm does it.
template <bool Half>
__global__ void lay_out_normed_rows(rows_in x, const float* norm, float eps, laid_out to) {
  __shared__ float parts[32];
  wait_for_previous();
  const std::int64_t row = blockIdx.x;
  const bool there = row < x.rows;
  const float* const from = x.data + (there ? row * x.stride : 0);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  const float squares =
      squares_of_warp(from, x.columns, quads(from, 0) && quads(norm, 0), warp, warps);
  if (threadIdx.x % 32 == 0) parts[warp] = squares;
  __syncthreads();
  const float inverse = inverse_rms(parts, warps, x.columns, eps);
  for (std::int64_t at = threadIdx.x; at < to.groups * 4; at += blockDim.x) {
    to.put<Half>(row, at / 4, static_cast<int>(at % 4), [&](std::int64_t column) {
      return there && column < x.columns ? normed(from[column], inverse, norm[column]) : 0.0F;
    });
  }
}

}  // namespace tandem::kernels::cuda
