// Float32 products by fused multiply-add: a block of 128 threads has a tile of 64 by 64 sums, each
// one chain over the inner dimension in its order, and a thread 8 by 4 of them. Operands pass
// through shared memory sixteen of the inner dimension at a time; those of the next step are on
// their way in registers while one is computed.
#pragma once

#include <cuda_runtime.h>

namespace tandem::kernels::cuda {

inline constexpr int float_tile = 64;
inline constexpr int float_steps = 16;  // of the inner dimension
inline constexpr int float_threads = 128;

// [inner][64 and four that keep columns of different lanes in different banks]
using float_operand = float[float_steps][float_tile + 4];

// A thread's sums: 8 along a, 4 along b.
struct float_sums {
  float v[8][4] = {};
};
__device__ inline int float_first_a() { return static_cast<int>(threadIdx.x) / 16 * 8; }
__device__ inline int float_first_b() { return static_cast<int>(threadIdx.x) % 16 * 4; }

__device__ inline void multiply_steps(const float_operand& a, const float_operand& b,
                                      float_sums& sums) {
  const int first_a = float_first_a();
  const int first_b = float_first_b();
#pragma unroll
  for (int k = 0; k < float_steps; ++k) {
    const float4 a0 = *reinterpret_cast<const float4*>(&a[k][first_a]);
    const float4 a1 = *reinterpret_cast<const float4*>(&a[k][first_a + 4]);
    const float4 b0 = *reinterpret_cast<const float4*>(&b[k][first_b]);
    const float of_a[8] = {a0.x, a0.y, a0.z, a0.w, a1.x, a1.y, a1.z, a1.w};
    const float of_b[4] = {b0.x, b0.y, b0.z, b0.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) sums.v[i][j] = __fmaf_rn(of_a[i], of_b[j], sums.v[i][j]);
    }
  }
}

__device__ inline void add_sums(float_sums& to, const float_sums& from) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) to.v[i][j] = __fadd_rn(to.v[i][j], from.v[i][j]);
  }
}

}  // namespace tandem::kernels::cuda
