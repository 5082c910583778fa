// What attention over packed rows and its backward share: tiles of a span's rows in shared memory,
// float32, at absolute multiples within the span, so that a row's bits do not depend on what is
// packed beside its span.
#pragma once

#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/device_math.cuh"

#include <vector>

namespace tandem::kernels::cuda {

inline constexpr int tile_threads = 256;  // 16 x 16; a thread takes rows and columns of a tile

// A block's rows: those of [first_row, first_row + row_count) from `begin` on, a tile of them.
struct span_tile {
  std::int32_t first_row;
  std::int32_t row_count;
  std::int32_t begin;
};
// Of all spans, the longest work first: rows see those before them; keys are seen by those behind.
std::vector<span_tile> tiles_of(std::span<const packed_span> spans, int tile_rows,
                                bool early_rows_first);

// A head of consecutive rows.
struct head_rows {
  const float* data;
  std::int64_t stride;
  bool wide;  // rows are aligned to 16 bytes
};

// Whether every head of these rows is aligned to 16 bytes (H is a multiple of 8).
inline bool aligned_rows(const float* data, std::int64_t stride) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && stride % 4 == 0;
}

// Rows of a tile are padded by four floats: sixteen rows' quads lie in different banks.
template <int Columns>
inline constexpr int tile_stride = Columns + 4;

// Rows [begin, begin + Rows) of `from` into shared memory, zeros beyond `count` and H.
template <int Columns, int Rows>
__device__ void take_rows(const head_rows& from, int begin, int count, int head_size, float* tile) {
  constexpr int quads = Columns / 4;
  for (int i = static_cast<int>(threadIdx.x); i < Rows * quads; i += tile_threads) {
    const int row = i / quads;
    const int column = i % quads * 4;
    float4 value{0.0F, 0.0F, 0.0F, 0.0F};
    if (begin + row < count && column < head_size) {
      const float* const at = from.data + (begin + row) * from.stride + column;
      value = from.wide ? *reinterpret_cast<const float4*>(at) : float4{at[0], at[1], at[2], at[3]};
    }
    *reinterpret_cast<float4*>(tile + row * tile_stride<Columns> + column) = value;
  }
}

// sums[i][j] = a[row i] . b[row j] over the columns, in order. Rows of a: RowCount from
// threadIdx / 16 * RowCount; of b: every sixteenth from threadIdx % 16.
template <int Columns, int RowCount, int OtherCount>
__device__ void dot_rows(const float* a, const float* b, float (&sums)[RowCount][OtherCount]) {
  const float* const rows =
      a + static_cast<int>(threadIdx.x) / 16 * RowCount * tile_stride<Columns>;
  const float* const others = b + static_cast<int>(threadIdx.x) % 16 * tile_stride<Columns>;
#pragma unroll
  for (auto& row : sums) {
#pragma unroll
    for (float& sum : row) sum = 0.0F;
  }
  constexpr int steps = OtherCount >= 4 ? 2 : 1;  // more would spill beside a backward's sums
#pragma unroll steps
  for (int h = 0; h < Columns; h += 4) {
    float4 other[OtherCount];
#pragma unroll
    for (int j = 0; j < OtherCount; ++j)
      other[j] = *reinterpret_cast<const float4*>(others + 16 * j * tile_stride<Columns> + h);
#pragma unroll
    for (int i = 0; i < RowCount; ++i) {
      const float4 row = *reinterpret_cast<const float4*>(rows + i * tile_stride<Columns> + h);
#pragma unroll
      for (int j = 0; j < OtherCount; ++j) {
        float sum = __fmaf_rn(row.x, other[j].x, sums[i][j]);
        sum = __fmaf_rn(row.y, other[j].y, sum);
        sum = __fmaf_rn(row.z, other[j].z, sum);
        sums[i][j] = __fmaf_rn(row.w, other[j].w, sum);
      }
    }
  }
}

// sums[i][g] += weights[row i] times the rows of `tile`, in order; columns are quads from
// threadIdx % 16 * 4 on, every 64. A row of weights is Others + 4 floats.
// Two at a time: four would spill beside a backward's sums.
template <int Columns, int RowCount, int Others>
__device__ void add_weighted(const float* weights, const float* tile,
                             float4 (&sums)[RowCount][Columns / 64]) {
  constexpr int weight_stride = Others + 4;
  const float* const rows = weights + static_cast<int>(threadIdx.x) / 16 * RowCount * weight_stride;
  const float* const columns = tile + static_cast<int>(threadIdx.x) % 16 * 4;
#pragma unroll 1
  for (int k = 0; k < Others; k += 2) {
    float2 weights_of_two[RowCount];
#pragma unroll
    for (int i = 0; i < RowCount; ++i)
      weights_of_two[i] = *reinterpret_cast<const float2*>(rows + i * weight_stride + k);
#pragma unroll
    for (int kk = 0; kk < 2; ++kk) {
#pragma unroll
      for (int g = 0; g < Columns / 64; ++g) {
        const float4 value =
            *reinterpret_cast<const float4*>(columns + (k + kk) * tile_stride<Columns> + 64 * g);
#pragma unroll
        for (int i = 0; i < RowCount; ++i) {
          const float weight = kk == 0 ? weights_of_two[i].x : weights_of_two[i].y;
          sums[i][g].x = __fmaf_rn(weight, value.x, sums[i][g].x);
          sums[i][g].y = __fmaf_rn(weight, value.y, sums[i][g].y);
          sums[i][g].z = __fmaf_rn(weight, value.z, sums[i][g].z);
          sums[i][g].w = __fmaf_rn(weight, value.w, sums[i][g].w);
        }
      }
    }
  }
}

// Columns of a thread, as add_weighted has them, times `factor` to a row in memory.
template <int Columns>
__device__ void put_columns(const float4 (&sums)[Columns / 64], float factor, int head_size,
                            float* row) {
#pragma unroll
  for (int g = 0; g < Columns / 64; ++g) {
    const int h = static_cast<int>(threadIdx.x) % 16 * 4 + 64 * g;
    if (h >= head_size) continue;
    row[h] = sums[g].x * factor;
    row[h + 1] = sums[g].y * factor;
    row[h + 2] = sums[g].z * factor;
    row[h + 3] = sums[g].w * factor;
  }
}

// Both are rows of one span.
__device__ inline bool sees(int query, int key, int window) {
  return key <= query && (window <= 0 || key > query - window);
}

}  // namespace tandem::kernels::cuda
