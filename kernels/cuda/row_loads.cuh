// Four numbers of a row at a time, together where they are aligned and whole; either way the same
// thread has the same numbers, so that sums do not depend on where a row lies.
#pragma once

#include "kernels/cuda/device_math.cuh"

#include <cuda_runtime.h>

#include <cstdint>

namespace tandem::kernels::cuda {

// Threads for a row: by its width alone, so that its sums are added alike in every batch.
inline unsigned threads_for(std::int64_t columns) {
  return columns <= 1024 ? 128 : columns <= 4096 ? 256 : 512;
}

__device__ inline bool quads(const float* row, std::int64_t first) {
  return reinterpret_cast<std::uintptr_t>(row + first) % 16 == 0;
}

// Numbers i to i + 3; zero behind the row's end.
__device__ inline float4 load4(const float* row, std::int64_t i, std::int64_t columns, bool wide) {
  if (wide && i + 4 <= columns) return *reinterpret_cast<const float4*>(row + i);
  return {row[i], i + 1 < columns ? row[i + 1] : 0.0F, i + 2 < columns ? row[i + 2] : 0.0F,
          i + 3 < columns ? row[i + 3] : 0.0F};
}

__device__ inline void store4(float* row, std::int64_t i, std::int64_t columns, bool wide,
                              float4 v) {
  if (wide && i + 4 <= columns) {
    *reinterpret_cast<float4*>(row + i) = v;
    return;
  }
  row[i] = v.x;
  if (i + 1 < columns) row[i + 1] = v.y;
  if (i + 2 < columns) row[i + 2] = v.z;
  if (i + 3 < columns) row[i + 3] = v.w;
}

// The norm of a row, the same bits whichever kernel takes it: `threads_for` threads' worth of sums,
// each over every so manieth four numbers, meet in their warps' butterflies and those in another.
// This is one warp's part; `warp` need not be the calling one's own number.
__device__ inline float squares_of_warp(const float* row, std::int64_t columns, bool wide, int warp,
                                        int warps) {
  float sum = 0.0F;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (std::int64_t i = 4 * (32 * warp + lane); i < columns; i += 128 * warps) {
    const float4 v = load4(row, i, columns, wide);
    sum = __fmaf_rn(v.x, v.x, sum);
    sum = __fmaf_rn(v.y, v.y, sum);
    sum = __fmaf_rn(v.z, v.z, sum);
    sum = __fmaf_rn(v.w, v.w, sum);
  }
  return warp_sum(sum);
}
// From the warps' parts, by a whole warp.
__device__ inline float inverse_rms(const float* parts, int warps, std::int64_t columns,
                                    float eps) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float squares = warp_sum(lane < warps ? parts[lane] : 0.0F);
  return 1.0F / sqrtf(squares / static_cast<float>(columns) + eps);
}
__device__ inline float normed(float x, float inverse, float weight) {
  return __fmul_rn(__fmul_rn(x, inverse), weight);
}

}  // namespace tandem::kernels::cuda
