// What kernels of several files share: sums over a warp and a block in a fixed order, loads of four
// numbers, and the slot tree.
#pragma once

#include "kernels/backend.hpp"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace tandem::kernels::cuda {

inline constexpr unsigned whole_warp = 0xffffffffU;

// Every lane gets the sum, the same bits in all (a butterfly adds the same pairs in each).
__device__ inline float warp_sum(float x) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(whole_warp, x, step);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(whole_warp, x, step));
  return x;
}

// Over a block of whole warps, at most 32 of them; every thread gets it. `room` is shared memory
// for 32 floats, free again after the block's next barrier.
__device__ inline float block_sum(float x, float* room) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  x = warp_sum(x);
  if (lane == 0) room[warp] = x;
  __syncthreads();
  x = warp_sum(lane < warps ? room[lane] : 0.0F);
  __syncthreads();
  return x;
}
__device__ inline float block_max(float x, float* room) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  x = warp_max(x);
  if (lane == 0) room[warp] = x;
  __syncthreads();
  x = warp_max(lane < warps ? room[lane] : -INFINITY);
  __syncthreads();
  return x;
}

__host__ __device__ inline float activated(float x, activation act) {
  if (act == activation::silu) return x / (1.0F + expf(-x));
  const float inner = 0.7978845608028654F * (x + 0.044715F * x * x * x);
  return 0.5F * x * (1.0F + tanhf(inner));
}
__host__ __device__ inline float activated_slope(float x, activation act) {
  if (act == activation::silu) {
    const float s = 1.0F / (1.0F + expf(-x));
    return s * (1.0F + x * (1.0F - s));
  }
  constexpr float c = 0.7978845608028654F;
  const float t = tanhf(c * (x + 0.044715F * x * x * x));
  return 0.5F * (1.0F + t) + 0.5F * x * (1.0F - t * t) * c * (1.0F + 3.0F * 0.044715F * x * x);
}

// The slot tree of kernels/backend.hpp over `count` leaves: leaf(i) is segment i's sum. Any number
// of slots; no recursion: a stack of the ranges still to add.
template <class Leaf>
__device__ float tree_sum(std::int64_t count, const Leaf& leaf) {
  // Of a range [begin, end): its first half's sum is known or not yet begun.
  struct range {
    std::int32_t begin;
    std::int32_t end;
    float first;
    bool second;
  };
  if (count <= 0) return 0.0F;
  range stack[24];
  int depth = 0;
  std::int32_t begin = 0;
  std::int32_t end = static_cast<std::int32_t>(count);
  for (;;) {
    while (end - begin > 1) {
      stack[depth++] = {begin, end, 0.0F, false};
      end = (begin + end) / 2;
    }
    float sum = leaf(begin);
    while (depth > 0 && stack[depth - 1].second) sum = stack[--depth].first + sum;
    if (depth == 0) return sum;
    range& above = stack[depth - 1];
    above.first = sum;
    above.second = true;
    begin = (above.begin + above.end) / 2;
    end = above.end;
  }
}

}  // namespace tandem::kernels::cuda
