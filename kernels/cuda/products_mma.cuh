// One group of a tile times eight rows on the tensor cores. A warp's lane is 4 g + t: it holds the
// weights of outputs g and g + 8, the activations of row g, and sums of outputs g and g + 8 for
// rows 2t and 2t + 1.
#pragma once

#include "kernels/cuda/products.cuh"

#include <cuda_bf16.h>

#include <type_traits>

namespace tandem::kernels::cuda {

__device__ inline void multiply_bf16(float (&c)[4], std::uint32_t a0, std::uint32_t a1,
                                     std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                                     std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ inline void multiply_f16(float (&c)[4], std::uint32_t a0, std::uint32_t a1,
                                    std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                                    std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ inline void multiply_s8(int (&c)[4], std::uint32_t a0, std::uint32_t a1,
                                   std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                                   std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// A lane's part of one group of weights. Scales are two a word: block after block; of fp8 one
// float.
template <weight_format F>
struct weight_part {
  static constexpr int scale_words = F == weight_format::fp8 ? 1 : group_blocks(F) / 2;
  static constexpr int least_words = F == weight_format::q4_1 ? 2 : 0;
  uint4 low;   // output g
  uint4 high;  // output g + 8
  std::uint32_t scales[2][scale_words > 0 ? scale_words : 1];
  std::uint32_t leasts[2][least_words > 0 ? least_words : 1];
};

// Weights are read once: they do not push activations out of the first cache.
struct from_global {
  __device__ static uint4 load16(const std::byte* p) {
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(p));
    return v;
  }
};
struct from_shared {
  __device__ static uint4 load16(const std::byte* p) { return *reinterpret_cast<const uint4*>(p); }
};

template <weight_format F, class Memory>
__device__ inline weight_part<F> load_weights(const std::byte* group, int lane) {
  weight_part<F> part;
  part.low = Memory::load16(group + lane * 16);
  part.high = Memory::load16(group + 512 + lane * 16);
  if constexpr (weight_part<F>::scale_words > 0) {
    constexpr int words = weight_part<F>::scale_words;
    const auto* const scales = reinterpret_cast<const std::uint32_t*>(group + 1024);
    const int g = lane / 4;
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < words; ++i) {
        part.scales[half][i] = scales[(g + 8 * half) * words + i];
        if constexpr (F == weight_format::q4_1)
          part.leasts[half][i] = scales[32 + (g + 8 * half) * words + i];
      }
    }
  }
  return part;
}

// Of fp8: numbers as bf16, which is exact, and the scales as floats.
struct decoded_part {
  uint4 low[2];  // output g: columns of the first 32, of the second
  uint4 high[2];
  float scales[2];
};
// What `multiply` takes.
template <weight_format F>
using ready_part = std::conditional_t<F == weight_format::fp8, decoded_part, weight_part<F>>;

// Eight numbers: sign, exponent and mantissa moved to their places, then the exponent's bias by a
// product with 2^120, which also makes subnormal numbers normal ones.
__device__ inline uint4 eight_of_fp8(std::uint32_t first_word, std::uint32_t second_word) {
  std::uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t small = fp8_pair(first_word, second_word, i);
    constexpr std::uint32_t bias = 0x7B807B80U;  // 2^120 twice
    const __nv_bfloat162 pair = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&small),
                                        *reinterpret_cast<const __nv_bfloat162*>(&bias));
    pairs[i] = *reinterpret_cast<const std::uint32_t*>(&pair);
  }
  return {pairs[0], pairs[1], pairs[2], pairs[3]};
}

template <weight_format F>
__device__ inline ready_part<F> make_ready(const weight_part<F>& w) {
  if constexpr (F == weight_format::fp8) {
    return {{eight_of_fp8(w.low.x, w.low.y), eight_of_fp8(w.low.z, w.low.w)},
            {eight_of_fp8(w.high.x, w.high.y), eight_of_fp8(w.high.z, w.high.w)},
            {__uint_as_float(w.scales[0][0]), __uint_as_float(w.scales[1][0])}};
  } else {
    return w;
  }
}

__device__ inline float half_of_word(std::uint32_t word, int which) {
  const __half_raw raw{static_cast<unsigned short>(which == 0 ? word & 0xffffU : word >> 16)};
  return __half2float(__half(raw));
}

// Sums of one group: activations of row g for this lane (16 bytes, of nibbles two pieces of 64
// columns, of fp8 two of 32) and scales of rows 2t and 2t + 1 for each block.
template <weight_format F>
struct row_part {
  static constexpr int pieces = has_nibbles(F) || F == weight_format::fp8 ? 2 : 1;
  static constexpr int blocks = group_blocks(F) > 0 ? group_blocks(F) : 1;
  uint4 values[pieces];
  float2 scales[blocks][2];
};

template <weight_format F>
__device__ inline void multiply(float (&sum)[4], const ready_part<F>& w, const row_part<F>& x) {
  if constexpr (F == weight_format::fp8) {
    float part[4] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint4 low = w.low[i];
      const uint4 high = w.high[i];
      const uint4 b = x.values[i];
      multiply_bf16(part, low.x, high.x, low.y, high.y, b.x, b.y);
      multiply_bf16(part, low.z, high.z, low.w, high.w, b.z, b.w);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] = __fmaf_rn(part[i], w.scales[i / 2], sum[i]);
  } else if constexpr (!has_blocks(F)) {
    const uint4 b = x.values[0];
    if constexpr (F == weight_format::bf16) {
      multiply_bf16(sum, w.low.x, w.high.x, w.low.y, w.high.y, b.x, b.y);
      multiply_bf16(sum, w.low.z, w.high.z, w.low.w, w.high.w, b.z, b.w);
    } else {
      multiply_f16(sum, w.low.x, w.high.x, w.low.y, w.high.y, b.x, b.y);
      multiply_f16(sum, w.low.z, w.high.z, w.low.w, w.high.w, b.z, b.w);
    }
  } else {
#pragma unroll
    for (int block = 0; block < row_part<F>::blocks; ++block) {
      const uint4& b = x.values[block / 2];
      const std::uint32_t b0 = block % 2 == 0 ? b.x : b.z;
      const std::uint32_t b1 = block % 2 == 0 ? b.y : b.w;
      int products[4] = {0, 0, 0, 0};
      if constexpr (F == weight_format::q8_0) {
        if (block == 0) {
          multiply_s8(products, w.low.x, w.high.x, w.low.y, w.high.y, b0, b1);
        } else {
          multiply_s8(products, w.low.z, w.high.z, w.low.w, w.high.w, b0, b1);
        }
      } else {
        const std::uint32_t low = (&w.low.x)[block];
        const std::uint32_t high = (&w.high.x)[block];
        constexpr std::uint32_t mask = 0x0F0F0F0FU;
        multiply_s8(products, low & mask, high & mask, (low >> 4) & mask, (high >> 4) & mask, b0,
                    b1);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 of_row = x.scales[block][i % 2];
        const float scale = half_of_word(w.scales[i / 2][block / 2], block % 2);
        if constexpr (F == weight_format::q4_0) products[i] += __float_as_int(of_row.y);
        if constexpr (F == weight_format::q4_1)
          sum[i] = __fmaf_rn(half_of_word(w.leasts[i / 2][block / 2], block % 2), of_row.y, sum[i]);
        sum[i] = __fmaf_rn(static_cast<float>(products[i]), __fmul_rn(scale, of_row.x), sum[i]);
      }
    }
  }
}

}  // namespace tandem::kernels::cuda
