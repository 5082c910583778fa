// Four numbers of a row at a time, together where they are aligned and whole; either way the same
// thread has the same numbers, so that sums do not depend on where a row lies.
#pragma once

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

}  // namespace tandem::kernels::cuda
