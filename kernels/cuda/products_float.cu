// Products with float32 weights. Few rows: half a warp has one chunk of a tile, a lane an output;
// traffic as in products_few.cu. Many rows: tiles of 64 rows by 64 outputs. A sum's chain over a
// chunk's columns is in their order in both.
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/float_tile.cuh"
#include "kernels/cuda/products.cuh"

#include <algorithm>

namespace tandem::kernels::cuda {
namespace {

// Columns 4 quad .. of a row of x, zero behind the last.
__device__ float4 load_quad(const product& p, std::int64_t row, std::int32_t quad) {
  const float* const from = p.x + row * p.x_stride;
  const std::int32_t column = quad * 4;
  if (p.x_aligned && column + 4 <= p.columns)
    return *reinterpret_cast<const float4*>(from + column);
  const auto at = [&](std::int32_t k) { return k < p.columns ? from[k] : 0.0F; };
  return {at(column), at(column + 1), at(column + 2), at(column + 3)};
}

// The weights of columns 4 quad .. of one output: `from` is its first. Zero behind the last column.
__device__ float4 load_weights(const product& p, const float* from, std::int32_t quad) {
  const std::int32_t column = quad * 4;
  const auto at = [&](std::int32_t k) {
    return k < p.columns ? from[std::int64_t{k} * tile_outputs] : 0.0F;
  };
  return {at(column), at(column + 1), at(column + 2), at(column + 3)};
}

__device__ float chained(float4 w, float4 x, float sum) {
  sum = __fmaf_rn(w.x, x.x, sum);
  sum = __fmaf_rn(w.y, x.y, sum);
  sum = __fmaf_rn(w.z, x.z, sum);
  return __fmaf_rn(w.w, x.w, sum);
}

// Rows: of one pass. Sixteen threads for each chunk of each tile.
template <int Rows, int Tiles>
__global__ __launch_bounds__(256, Rows > 4 ? 1 : 2) void few_rows_kernel(const product p) {
  __shared__ float sums[8][Tiles][Rows][tile_outputs];
  const int lane = static_cast<int>(threadIdx.x) % 16;
  const int part = static_cast<int>(threadIdx.x) / 16;
  const int chunks = static_cast<int>(blockDim.x) / 16 / Tiles;
  const int chunk = part % chunks;
  const int tile = part / chunks;
  const product_rows rows = rows_of_product(p, blockIdx.y);
  const auto* const weights =
      reinterpret_cast<const float*>(rows.weights +
                                     (std::int64_t{blockIdx.x} * Tiles + tile) * p.tile_stride) +
      lane;
  const std::int32_t begin = chunk * p.chunk / 4;
  const std::int32_t end = (min((chunk + 1) * p.chunk, p.columns) + 3) / 4;

  for (std::int32_t first = 0; first < rows.count; first += Rows) {
    std::int32_t row[Rows];
#pragma unroll
    for (int r = 0; r < Rows; ++r)
      row[r] = x_row_of(p, rows.first + min(first + r, rows.count - 1));
    float sum[Rows] = {};
#pragma unroll(Rows > 4 ? 2 : 4)
    for (std::int32_t quad = begin; quad < end; ++quad) {
      const float4 w = load_weights(p, weights, quad);
#pragma unroll
      for (int r = 0; r < Rows; ++r) sum[r] = chained(w, load_quad(p, row[r], quad), sum[r]);
    }
#pragma unroll
    for (int r = 0; r < Rows; ++r) sums[chunk][tile][r][lane] = sum[r];
    __syncthreads();
    for (int at = static_cast<int>(threadIdx.x); at < Rows * tile_outputs;
         at += static_cast<int>(blockDim.x)) {
      const int r = at / tile_outputs;
      const int output = at % tile_outputs;
      if (first + r >= rows.count) break;
      float total[Tiles] = {};
      for (int c = 0; c < chunks; ++c) {
#pragma unroll
        for (int i = 0; i < Tiles; ++i) total[i] = __fadd_rn(total[i], sums[c][i][r][output]);
      }
      const std::int32_t to = rows.first + first + r;
      const std::int32_t place = static_cast<std::int32_t>(blockIdx.x) * tile_outputs + output;
      if constexpr (Tiles == 2) {
        put_gated(p, to, place, total[0], total[1]);
      } else {
        put_output(p, to, place, total[0]);
      }
    }
    __syncthreads();
  }
}

// A block's next sixteen columns: of each operand two loads of four a thread, of x four columns of
// a row, of the weights four outputs of a column.
struct next_columns {
  float4 x[2];
  float4 w[2];
};

// Sixteen columns from `column` on; zero behind the last.
__device__ next_columns load_next(const product& p, const std::byte* tiles, int tiles_there,
                                  const std::int32_t* row_of, std::int32_t column) {
  next_columns next;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * float_threads;
    const float4 zero = {0.0F, 0.0F, 0.0F, 0.0F};
    const std::int32_t x_quad = column / 4 + at % 4;
    next.x[i] = x_quad * 4 < p.columns ? load_quad(p, row_of[at / 4], x_quad) : zero;
    const int tile = at / 64;
    const std::int32_t w_column = column + at / 4 % 16;
    next.w[i] = w_column < p.columns && tile < tiles_there
                    ? *reinterpret_cast<const float4*>(tiles + tile * p.tile_stride +
                                                       std::int64_t{w_column} * 64 + at % 4 * 16)
                    : zero;
  }
  return next;
}

__device__ void store_next(const next_columns& next, float_operand& x, float_operand& w) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * float_threads;
    const float of_x[4] = {next.x[i].x, next.x[i].y, next.x[i].z, next.x[i].w};
#pragma unroll
    for (int k = 0; k < 4; ++k) x[at % 4 * 4 + k][at / 4] = of_x[k];
    *reinterpret_cast<float4*>(&w[at / 4 % 16][at / 64 * 16 + at % 4 * 4]) = next.w[i];
  }
}

// A chunk's columns are whole 32, or end with the matrix: a step never has columns of two chunks,
// and those behind the end add zeros to a sum.
template <bool Gated>
__global__ __launch_bounds__(float_threads) void many_rows_kernel(const product p) {
  __shared__ float_operand x[2];
  __shared__ float_operand w[2];
  __shared__ std::int32_t row_of[float_tile];
  const product_rows all = rows_of_product(p, blockIdx.z);
  const std::int32_t first_row = static_cast<std::int32_t>(blockIdx.x) * float_tile;
  if (first_row >= all.count) return;
  if (threadIdx.x < float_tile)
    row_of[threadIdx.x] = x_row_of(
        p, all.first + min(first_row + static_cast<std::int32_t>(threadIdx.x), all.count - 1));
  __syncthreads();
  const int first_tile = static_cast<int>(blockIdx.y) * (float_tile / tile_outputs);
  const int all_tiles = (p.outputs + tile_outputs - 1) / tile_outputs * (Gated ? 2 : 1);
  const int tiles_there = min(float_tile / tile_outputs, all_tiles - first_tile);
  const std::byte* const tiles = all.weights + first_tile * p.tile_stride;

  float_sums sums;
  float_sums total;
  next_columns next = load_next(p, tiles, tiles_there, row_of, 0);
  std::int32_t chunk_end = p.chunk;
  int buffer = 0;
#pragma unroll 1
  for (std::int32_t column = 0; column < p.columns; column += float_steps) {
    store_next(next, x[buffer], w[buffer]);
    __syncthreads();
    const std::int32_t behind = column + float_steps;
    if (behind < p.columns) next = load_next(p, tiles, tiles_there, row_of, behind);
    multiply_steps(x[buffer], w[buffer], sums);
    buffer = 1 - buffer;
    if (behind == chunk_end || behind >= p.columns) {
      chunk_end += p.chunk;
      add_sums(total, sums);
      sums = float_sums{};
    }
  }
  const int first_output = float_first_b();
  const int tile = first_tile + first_output / tile_outputs;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const std::int32_t row = first_row + float_first_a() + i;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int within = first_output % tile_outputs + j;
      if constexpr (Gated) {
        // Up lies four lanes on: a tile of outputs is four lanes wide.
        const float up = __shfl_down_sync(whole_warp, total.v[i][j], 4);
        if (row < all.count && tile % 2 == 0)
          put_gated(p, all.first + row, tile / 2 * tile_outputs + within, total.v[i][j], up);
      } else if (row < all.count) {
        put_output(p, all.first + row, tile * tile_outputs + within, total.v[i][j]);
      }
    }
  }
}

template <int Rows>
void launch_few(const product& p, int expert_count, cudaStream_t stream) {
  const int chunks = (p.groups + p.chunk - 1) / p.chunk;
  const dim3 grid(static_cast<unsigned>((p.outputs + tile_outputs - 1) / tile_outputs),
                  static_cast<unsigned>(expert_count));
  if (p.gated) {
    few_rows_kernel<Rows, 2><<<grid, static_cast<unsigned>(32 * chunks), 0, stream>>>(p);
  } else {
    few_rows_kernel<Rows, 1><<<grid, static_cast<unsigned>(16 * chunks), 0, stream>>>(p);
  }
  launched("a float product of few rows", p.rows, p.outputs);
}

}  // namespace

void few_rows_float_product(const product& p, int expert_count, int most_rows,
                            cudaStream_t stream) {
  if (most_rows <= 1) return launch_few<1>(p, expert_count, stream);
  if (most_rows <= 2) return launch_few<2>(p, expert_count, stream);
  if (most_rows <= 4) return launch_few<4>(p, expert_count, stream);
  launch_few<8>(p, expert_count, stream);
}

void many_rows_float_product(const product& p, int expert_count, int most_rows,
                             cudaStream_t stream) {
  const int tiles = (p.outputs + tile_outputs - 1) / tile_outputs * (p.gated ? 2 : 1);
  const dim3 grid(static_cast<unsigned>((most_rows + float_tile - 1) / float_tile),
                  static_cast<unsigned>((tiles + 3) / 4), static_cast<unsigned>(expert_count));
  if (p.gated) {
    many_rows_kernel<true><<<grid, float_threads, 0, stream>>>(p);
  } else {
    many_rows_kernel<false><<<grid, float_threads, 0, stream>>>(p);
  }
  launched("a float product of many rows", most_rows, p.outputs);
}

}  // namespace tandem::kernels::cuda
