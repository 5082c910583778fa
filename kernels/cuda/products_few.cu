// Products of few rows: the time is that of reading the weights once. A block has one tile (a
// gate's and an up's when gated), a warp one chunk of its columns; weights go straight to
// registers, four groups in flight a warp: 16 warps an SM ask for 64 KB, an H200 wants about 25.
// The chunks meet in shared memory. Traffic: the weights once, rows once a block (from the second
// cache).
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/products.cuh"
#include "kernels/cuda/products_mma.cuh"
#include "kernels/cuda/rounding.cuh"
#include "kernels/cuda/row_loads.cuh"

#include <algorithm>

namespace tandem::kernels::cuda {
namespace {

// Floats from one row's sums to the next one's in shared memory: lanes write to 32 banks.
constexpr int sums_stride = 20;

// How a product finds its rows: prepared, or as float32 that is rounded here, or normed before.
enum class row_kind : std::uint8_t { prepared, plain, normed };

template <weight_format F, row_kind Kind>
__device__ row_part<F> load_row(const product& p, std::int32_t group, std::int32_t row, bool there,
                                float inverse, const std::int32_t (&scale_rows)[2], int lane) {
  row_part<F> part;
  const int t = lane % 4;
  constexpr int pieces = row_part<F>::pieces;
  if constexpr (Kind != row_kind::prepared) {
#pragma unroll
    for (int piece = 0; piece < pieces; ++piece) {
      const std::int64_t column = (std::int64_t{group} * pieces + piece) * 32 + t * 8;
      float v[8] = {};
      if (there) load_columns(p.x + row * p.x_stride, column, p.columns, p.x_aligned, v);
      if constexpr (Kind == row_kind::normed) {
        float weights[8];
        load_columns(p.norm, column, p.columns, p.x_aligned, weights);
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] = normed(v[i], inverse, weights[i]);
      }
      part.values[piece] = F == weight_format::f16 ? eight_halves(v) : eight_bf16(v);
    }
  } else {
#pragma unroll
    for (int i = 0; i < pieces; ++i) {
      const std::int64_t piece = std::int64_t{group} * pieces + i;
      part.values[i] = *reinterpret_cast<const uint4*>(
          p.prepared.data + (piece * p.prepared.rows + row) * 64 + t * 16);
    }
    if constexpr (has_blocks(F)) {
#pragma unroll
      for (int block = 0; block < row_part<F>::blocks; ++block) {
        const std::int64_t at =
            (std::int64_t{group} * row_part<F>::blocks + block) * p.prepared.rows;
        part.scales[block][0] = p.prepared.scales[at + scale_rows[0]];
        part.scales[block][1] = p.prepared.scales[at + scale_rows[1]];
      }
    }
  }
  return part;
}

// 1 / rms of this lane's row, of at most most_normed_rows; by the whole block.
__device__ inline float norm_rows(const product& p, float (*parts)[16]) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warps_here = static_cast<int>(blockDim.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warps = p.columns <= 1024 ? 4 : p.columns <= 4096 ? 8 : 16;  // threads_for
  for (int i = warp; i < warps * p.rows; i += warps_here) {
    const float squares =
        squares_of_warp(p.x + i / warps * p.x_stride, p.columns, p.x_aligned, i % warps, warps);
    if (lane == 0) parts[i / warps][i % warps] = squares;
  }
  __syncthreads();
  float mine = 0.0F;
  for (int row = 0; row < p.rows; ++row) {
    const float inverse = inverse_rms(parts[row], warps, p.columns, p.norm_eps);
    if (lane / 4 == row) mine = inverse;
  }
  return mine;
}

// Two blocks an SM where their sums leave the registers for it.
template <weight_format F, int Sums>
constexpr int blocks_an_sm() {
  if (F == weight_format::fp8) return Sums > 2 ? 1 : 2;
  return Sums > (has_blocks(F) ? 1 : 8) ? 1 : 2;
}

// Groups of weights that are loaded before the first is used.
template <weight_format F, int Sums>
constexpr int groups_ahead() {
  if (F == weight_format::fp8) return Sums == 1 ? 4 : Sums <= 4 ? 2 : 1;
  const int most = has_blocks(F) ? 2 : 4;
  return Sums <= most ? most : Sums <= 8 ? most / 2 : 1;
}

// A line of 128 bytes a lane from the chunk's begin on, into the second cache. (Asking for more, or
// for later rounds too, was slower.)
template <weight_format F>
__device__ void fetch_ahead(const std::byte* tile, std::int32_t begin, std::int32_t end, int lane) {
  const std::int64_t at = std::int64_t{begin} * group_bytes(F) + lane * 128;
  if (at < std::int64_t{end} * group_bytes(F))
    asm volatile("prefetch.global.L2 [%0];" ::"l"(tile + at));
}

// N: eights of rows. Tiles: 2 when gated.
template <weight_format F, int N, int Tiles, row_kind Kind>
__global__ __launch_bounds__(256,
                             blocks_an_sm<F, N * Tiles>()) void few_rows_kernel(const product p) {
  extern __shared__ float sums[];  // [chunk][tile][row][sums_stride]
  constexpr int ahead = groups_ahead<F, N * Tiles>();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int chunk = static_cast<int>(threadIdx.x) / 32;
  const int chunks = static_cast<int>(blockDim.x) / 32;
  const int t = lane % 4;
  const std::int32_t begin = chunk * p.chunk;
  const std::int32_t end = min(begin + p.chunk, p.groups);
  const std::int64_t first_byte = std::int64_t{blockIdx.x} * Tiles * p.tile_stride;
  // Weights are there already: their first lines come while the kernel before ends.
  if (p.experts == nullptr) {
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile)
      fetch_ahead<F>(p.weights + first_byte + tile * p.tile_stride, begin, end, lane);
  }
  wait_for_previous();
  const product_rows rows = rows_of_product(p, blockIdx.y);
  const std::byte* const tiles = rows.weights + first_byte;
  float inverse = 0.0F;
  if constexpr (Kind == row_kind::normed) {
    __shared__ float parts[most_normed_rows][16];
    inverse = norm_rows(p, parts);
  }

  for (std::int32_t first = 0; first < rows.count; first += 8 * N) {
    // Behind the last row others stand in; their sums go nowhere.
    const auto row_at = [&](std::int32_t i) {
      return x_row_of(p, rows.first + min(first + i, rows.count - 1));
    };
    std::int32_t row[N];
    std::int32_t scale_rows[N][2];
#pragma unroll
    for (int n = 0; n < N; ++n) {
      row[n] = row_at(8 * n + lane / 4);
      scale_rows[n][0] = has_blocks(F) ? row_at(8 * n + 2 * t) : 0;
      scale_rows[n][1] = has_blocks(F) ? row_at(8 * n + 2 * t + 1) : 0;
    }
    float sum[Tiles][N][4] = {};
#pragma unroll 1
    for (std::int32_t group = begin; group < end; group += ahead) {
      weight_part<F> w[ahead][Tiles];
#pragma unroll
      for (int i = 0; i < ahead; ++i) {
        // Behind the chunk its last group again: loads without a branch all go out at once.
        const std::int64_t at = std::int64_t{min(group + i, end - 1)} * group_bytes(F);
#pragma unroll
        for (int tile = 0; tile < Tiles; ++tile)
          w[i][tile] = load_weights<F, from_global>(tiles + tile * p.tile_stride + at, lane);
      }
#pragma unroll
      for (int i = 0; i < ahead; ++i) {
        if (group + i >= end) break;
        ready_part<F> ready[Tiles];
#pragma unroll
        for (int tile = 0; tile < Tiles; ++tile) ready[tile] = make_ready<F>(w[i][tile]);
#pragma unroll
        for (int n = 0; n < N; ++n) {
          const bool there = first + 8 * n + lane / 4 < rows.count;
          const row_part<F> x =
              load_row<F, Kind>(p, group + i, row[n], there, inverse, scale_rows[n], lane);
#pragma unroll
          for (int tile = 0; tile < Tiles; ++tile) multiply<F>(sum[tile][n], ready[tile], x);
          // Else the compiler loads all rows' parts at once and has no registers left.
          if constexpr (has_blocks(F)) __syncwarp();
        }
      }
    }
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) {
#pragma unroll
      for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int of_row = 8 * n + 2 * t + i % 2;
          sums[((chunk * Tiles + tile) * 8 * N + of_row) * sums_stride + lane / 4 + i / 2 * 8] =
              sum[tile][n][i];
        }
      }
    }
    __syncthreads();
    for (int at = static_cast<int>(threadIdx.x); at < 8 * N * tile_outputs;
         at += static_cast<int>(blockDim.x)) {
      const int of_row = at / tile_outputs;
      const int output = at % tile_outputs;
      if (first + of_row >= rows.count) break;
      float total[Tiles] = {};
      for (int c = 0; c < chunks; ++c) {
#pragma unroll
        for (int tile = 0; tile < Tiles; ++tile) {
          total[tile] = __fadd_rn(
              total[tile], sums[((c * Tiles + tile) * 8 * N + of_row) * sums_stride + output]);
        }
      }
      const std::int32_t to = rows.first + first + of_row;
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

template <weight_format F, int N, int Tiles, row_kind Kind>
void launch(const product& p, int expert_count, cudaStream_t stream) {
  const int chunks = (p.groups + p.chunk - 1) / p.chunk;
  const int shared = chunks * Tiles * 8 * N * sums_stride * static_cast<int>(sizeof(float));
  if (shared > 48 * 1024)
    check(cudaFuncSetAttribute(few_rows_kernel<F, N, Tiles, Kind>,
                               cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
          "room for a product's sums", 1, shared);
  const dim3 grid(static_cast<unsigned>((p.outputs + tile_outputs - 1) / tile_outputs),
                  static_cast<unsigned>(expert_count));
  launch_early(few_rows_kernel<F, N, Tiles, Kind>, grid, static_cast<unsigned>(32 * chunks),
               static_cast<std::size_t>(shared), stream, p);
  launched("a product of few rows", p.rows, p.outputs);
}

template <weight_format F, int Tiles>
void launch_rows(const product& p, int expert_count, int most_rows, cudaStream_t stream) {
  if constexpr (!has_blocks(F)) {
    if constexpr (has_sixteen_bits(F)) {
      if (p.norm != nullptr) return launch<F, 1, Tiles, row_kind::normed>(p, expert_count, stream);
    }
    if (p.prepared.data == nullptr)
      return launch<F, 1, Tiles, row_kind::plain>(p, expert_count, stream);
  }
  if (most_rows <= 8) return launch<F, 1, Tiles, row_kind::prepared>(p, expert_count, stream);
  if constexpr (has_blocks(F)) {
    launch<F, 2, Tiles, row_kind::prepared>(p, expert_count, stream);
  } else {
    if (most_rows <= 16) return launch<F, 2, Tiles, row_kind::prepared>(p, expert_count, stream);
    // Of fp8 there are never more (few_rows_of).
    if constexpr (has_sixteen_bits(F)) {
      if (most_rows > 32) return launch<F, 8, Tiles, row_kind::prepared>(p, expert_count, stream);
    }
    launch<F, 4, Tiles, row_kind::prepared>(p, expert_count, stream);
  }
}

template <weight_format F>
void launch_format(const product& p, int expert_count, int most_rows, cudaStream_t stream) {
  if (p.gated) return launch_rows<F, 2>(p, expert_count, most_rows, stream);
  launch_rows<F, 1>(p, expert_count, most_rows, stream);
}

}  // namespace

void few_rows_product(weight_format format, const product& p, int expert_count, int most_rows,
                      cudaStream_t stream) {
  switch (format) {
    case weight_format::f32:
      return few_rows_float_product(p, expert_count, most_rows, stream);
    case weight_format::f16:
      return launch_format<weight_format::f16>(p, expert_count, most_rows, stream);
    case weight_format::bf16:
      return launch_format<weight_format::bf16>(p, expert_count, most_rows, stream);
    case weight_format::fp8:
      return launch_format<weight_format::fp8>(p, expert_count, most_rows, stream);
    case weight_format::q8_0:
      return launch_format<weight_format::q8_0>(p, expert_count, most_rows, stream);
    case weight_format::q4_0:
      return launch_format<weight_format::q4_0>(p, expert_count, most_rows, stream);
    case weight_format::q4_1:
      return launch_format<weight_format::q4_1>(p, expert_count, most_rows, stream);
  }
}

}  // namespace tandem::kernels::cuda
