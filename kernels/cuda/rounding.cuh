// Eight float32 columns of a row, and the same rounded to sixteen bits, to nearest even.
#pragma once

#include "kernels/backend.hpp"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace tandem::kernels::cuda {

// Whether 16 bytes may be loaded from column 4 i of every row.
inline bool loads_of_four(const rows_in& x) {
  return reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && x.stride % 4 == 0;
}

// Columns [column, column + 8) of a row, zero behind the last. `aligned` as loads_of_four.
__device__ inline void load_columns(const float* row, std::int64_t column, std::int64_t columns,
                                    bool aligned, float (&v)[8]) {
  if (aligned && column + 8 <= columns) {
    const float4 a = *reinterpret_cast<const float4*>(row + column);
    const float4 b = *reinterpret_cast<const float4*>(row + column + 4);
    v[0] = a.x;
    v[1] = a.y;
    v[2] = a.z;
    v[3] = a.w;
    v[4] = b.x;
    v[5] = b.y;
    v[6] = b.z;
    v[7] = b.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = column + i < columns ? row[column + i] : 0.0F;
}

__device__ inline std::uint32_t two_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
// What f16 cannot hold becomes its largest number.
__device__ inline std::uint32_t two_halves(float low, float high) {
  const auto held = [](float v) { return v > 65504.0F ? 65504.0F : v < -65504.0F ? -65504.0F : v; };
  const __half2 pair = __floats2half2_rn(held(low), held(high));
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
__device__ inline uint4 eight_bf16(const float (&v)[8]) {
  return {two_bf16(v[0], v[1]), two_bf16(v[2], v[3]), two_bf16(v[4], v[5]), two_bf16(v[6], v[7])};
}
__device__ inline uint4 eight_halves(const float (&v)[8]) {
  return {two_halves(v[0], v[1]), two_halves(v[2], v[3]), two_halves(v[4], v[5]),
          two_halves(v[6], v[7])};
}

}  // namespace tandem::kernels::cuda
