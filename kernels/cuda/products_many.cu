// Products of many rows: tiles of 128 outputs by 128 rows (64 rows of block formats, 64 outputs of
// fp8; 64 by 64 where those would leave SMs idle) on the tensor cores, operands through shared
// memory in three stages of cp.async. Weights and prepared rows lie there as in global memory,
// which lanes read as 16 bytes without bank conflicts. A warp has 64 outputs and 32 rows: an SM's
// shared memory then gives operands about as fast as mma.sync takes them. Traffic: weights once for
// each tile of rows, rows once for each of outputs, mostly from the second cache.
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/products.cuh"
#include "kernels/cuda/products_mma.cuh"

#include <algorithm>

namespace tandem::kernels::cuda {
namespace {

constexpr int threads = 256;
constexpr int stages = 3;

template <int Bytes>
__device__ void copy_ahead(void* shared, const void* global) {
  const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(Bytes)
                 : "memory");
  }
}
__device__ void end_stage() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Left>
__device__ void wait_stages() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
}

// Warps: two along outputs, four along rows. M tiles of outputs and N eights of rows a warp.
template <weight_format F, int M, int N>
struct shape {
  static constexpr int tiles = 2 * M;
  static constexpr int rows = 32 * N;
  static constexpr int groups = group_columns(F) > 32 ? 1 : 2;  // of a stage
  static constexpr int pieces = row_part<F>::pieces;            // of 64 bytes a row and group
  static constexpr int weight_bytes = tiles * groups * group_bytes(F);
  static constexpr int row_bytes = rows * groups * pieces * 64;
  static constexpr int scale_bytes = rows * group_blocks(F) * 8;
  static constexpr int stage_bytes = weight_bytes + row_bytes + scale_bytes;
};

template <weight_format F, int M, int N>
__device__ void load_stage(const product& p, const std::byte* tiles, int tiles_there,
                           std::int32_t group, const std::int32_t* row_of, std::byte* stage) {
  using s = shape<F, M, N>;
  const int thread = static_cast<int>(threadIdx.x);
  const int there = min(s::groups, p.groups - group);
  // A tile's groups are neighbours.
  constexpr int tile_pieces = s::groups * group_bytes(F) / 16;
  for (int i = thread; i < s::tiles * tile_pieces; i += threads) {
    const int tile = i / tile_pieces;
    const int piece = i % tile_pieces;
    if (tile >= tiles_there || piece * 16 >= there * group_bytes(F)) continue;
    copy_ahead<16>(stage + i * 16, tiles + tile * p.tile_stride +
                                       std::int64_t{group} * group_bytes(F) + piece * 16);
  }
  stage += s::weight_bytes;
  for (int i = thread; i < s::row_bytes / 16; i += threads) {
    const int piece = i / (4 * s::rows);
    const int row = i / 4 % s::rows;
    if (piece >= there * s::pieces) continue;
    const std::int64_t at =
        (std::int64_t{group} * s::pieces + piece) * p.prepared.rows + row_of[row];
    copy_ahead<16>(stage + i * 16, p.prepared.data + at * 64 + i % 4 * 16);
  }
  if constexpr (has_blocks(F)) {
    stage += s::row_bytes;
    for (int i = thread; i < s::rows * group_blocks(F); i += threads) {
      const std::int64_t at =
          (std::int64_t{group} * group_blocks(F) + i / s::rows) * p.prepared.rows +
          row_of[i % s::rows];
      copy_ahead<8>(stage + i * 8, p.prepared.scales + at);
    }
  }
}

template <weight_format F, int M, int N>
__device__ void multiply_group(float (&sum)[M][N][4], const std::byte* stage, int within,
                               int warp_m, int warp_n, int lane) {
  using s = shape<F, M, N>;
  const auto weights_of = [&](int m) {
    return make_ready<F>(load_weights<F, from_shared>(
        stage + ((warp_m * M + m) * s::groups + within) * group_bytes(F), lane));
  };
  const std::byte* const rows = stage + s::weight_bytes;
  const auto rows_of = [&](int n) {
    const int first = (warp_n * N + n) * 8;
    row_part<F> x;
#pragma unroll
    for (int piece = 0; piece < s::pieces; ++piece) {
      x.values[piece] = *reinterpret_cast<const uint4*>(
          rows + ((within * s::pieces + piece) * s::rows + first) * 64 + lane * 16);
    }
    if constexpr (has_blocks(F)) {
      const auto* const scales = reinterpret_cast<const float2*>(rows + s::row_bytes);
#pragma unroll
      for (int block = 0; block < row_part<F>::blocks; ++block) {
        const int at = block * s::rows + first + 2 * (lane % 4);
        x.scales[block][0] = scales[at];
        x.scales[block][1] = scales[at + 1];
      }
    }
    return x;
  };
  if constexpr (F == weight_format::fp8) {
    // Decoded weights take twice the registers: one tile's at a time, beside all rows.
    row_part<F> x[N];
#pragma unroll
    for (int n = 0; n < N; ++n) x[n] = rows_of(n);
#pragma unroll
    for (int m = 0; m < M; ++m) {
      const ready_part<F> w = weights_of(m);
#pragma unroll
      for (int n = 0; n < N; ++n) multiply<F>(sum[m][n], w, x[n]);
    }
  } else {
    ready_part<F> w[M];
#pragma unroll
    for (int m = 0; m < M; ++m) w[m] = weights_of(m);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const row_part<F> x = rows_of(n);
#pragma unroll
      for (int m = 0; m < M; ++m) multiply<F>(sum[m][n], w[m], x);
    }
  }
}

template <weight_format F, int M, int N, bool Gated>
__global__ __launch_bounds__(threads, 1) void many_rows_kernel(const product p) {
  using s = shape<F, M, N>;
  extern __shared__ uint4 shared_memory[];
  __shared__ std::int32_t row_of[s::rows];
  auto* const shared = reinterpret_cast<std::byte*>(shared_memory);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warp_m = warp % 2;
  const int warp_n = warp / 2;
  const product_rows all = rows_of_product(p, blockIdx.z);
  const std::int32_t first_row = static_cast<std::int32_t>(blockIdx.x) * s::rows;
  if (first_row >= all.count) return;
  for (int i = static_cast<int>(threadIdx.x); i < s::rows; i += threads)
    row_of[i] = x_row_of(p, all.first + min(first_row + i, all.count - 1));
  __syncthreads();
  const int first_tile = static_cast<int>(blockIdx.y) * s::tiles;
  const int all_tiles = (p.outputs + tile_outputs - 1) / tile_outputs * (Gated ? 2 : 1);
  const int tiles_there = min(s::tiles, all_tiles - first_tile);
  const std::byte* const tiles = all.weights + first_tile * p.tile_stride;

  float sum[M][N][4] = {};
  float total[M][N][4] = {};
  const int steps = (p.groups + s::groups - 1) / s::groups;
#pragma unroll
  for (int i = 0; i < stages - 1; ++i) {
    if (i < steps)
      load_stage<F, M, N>(p, tiles, tiles_there, i * s::groups, row_of,
                          shared + i * s::stage_bytes);
    end_stage();
  }
  std::int32_t chunk_end = p.chunk;
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    wait_stages<stages - 2>();
    __syncthreads();
    const int next = step + stages - 1;
    if (next < steps)
      load_stage<F, M, N>(p, tiles, tiles_there, next * s::groups, row_of,
                          shared + next % stages * s::stage_bytes);
    end_stage();
    const std::byte* const stage = shared + step % stages * s::stage_bytes;
#pragma unroll
    for (int within = 0; within < s::groups; ++within) {
      const std::int32_t group = step * s::groups + within;
      if (group >= p.groups) break;
      multiply_group<F, M, N>(sum, stage, within, warp_m, warp_n, lane);
      if (group + 1 != chunk_end && group + 1 != p.groups) continue;
      chunk_end += p.chunk;
#pragma unroll
      for (int i = 0; i < M * N * 4; ++i) {
        float& chunk_sum = sum[i / (N * 4)][i / 4 % N][i % 4];
        float& to = total[i / (N * 4)][i / 4 % N][i % 4];
        to = __fadd_rn(to, chunk_sum);
        chunk_sum = 0.0F;
      }
    }
  }
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::int32_t row = first_row + (warp_n * N + n) * 8 + 2 * (lane % 4) + i % 2;
      if (row >= all.count) continue;
#pragma unroll
      for (int m = 0; m < M; m += Gated ? 2 : 1) {
        const int tile = first_tile + warp_m * M + m;
        const int output = (Gated ? tile / 2 : tile) * tile_outputs + lane / 4 + i / 2 * 8;
        if constexpr (Gated) {
          put_gated(p, all.first + row, output, total[m][n][i], total[m + 1][n][i]);
        } else {
          put_output(p, all.first + row, output, total[m][n][i]);
        }
      }
    }
  }
}

template <weight_format F, int M, int N, bool Gated>
void launch(const product& p, int expert_count, int most_rows, cudaStream_t stream) {
  using s = shape<F, M, N>;
  constexpr int shared = stages * s::stage_bytes;
  check(cudaFuncSetAttribute(many_rows_kernel<F, M, N, Gated>,
                             cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
        "room for a product's operands", 1, shared);
  const int tiles = (p.outputs + tile_outputs - 1) / tile_outputs * (Gated ? 2 : 1);
  const dim3 grid(static_cast<unsigned>((most_rows + s::rows - 1) / s::rows),
                  static_cast<unsigned>((tiles + s::tiles - 1) / s::tiles),
                  static_cast<unsigned>(expert_count));
  many_rows_kernel<F, M, N, Gated><<<grid, threads, shared, stream>>>(p);
  launched("a product of many rows", most_rows, p.outputs);
}

// Of a warp, what its registers hold: decoded weights of fp8 take twice the room of others.
template <weight_format F>
constexpr int large_tiles = F == weight_format::fp8 ? 2 : 4;
template <weight_format F>
constexpr int large_eights = has_blocks(F) ? 2 : 4;

template <weight_format F, bool Gated>
void launch_size(const product& p, int expert_count, int most_rows, int multiprocessors,
                 cudaStream_t stream) {
  const std::int64_t outputs = p.outputs * (Gated ? 2 : 1);
  const std::int64_t large = (outputs + 127) / 128 * ((most_rows + 127) / 128);
  if (expert_count == 1 && large >= multiprocessors)
    return launch<F, large_tiles<F>, large_eights<F>, Gated>(p, expert_count, most_rows, stream);
  launch<F, 2, 2, Gated>(p, expert_count, most_rows, stream);
}

template <weight_format F>
void launch_format(const product& p, int expert_count, int most_rows, int multiprocessors,
                   cudaStream_t stream) {
  if (p.gated) return launch_size<F, true>(p, expert_count, most_rows, multiprocessors, stream);
  launch_size<F, false>(p, expert_count, most_rows, multiprocessors, stream);
}

}  // namespace

void many_rows_product(weight_format format, const product& p, int expert_count, int most_rows,
                       int multiprocessors, cudaStream_t stream) {
  switch (format) {
    case weight_format::f32:
      return many_rows_float_product(p, expert_count, most_rows, stream);
    case weight_format::f16:
      return launch_format<weight_format::f16>(p, expert_count, most_rows, multiprocessors, stream);
    case weight_format::bf16:
      return launch_format<weight_format::bf16>(p, expert_count, most_rows, multiprocessors,
                                                stream);
    case weight_format::fp8:
      return launch_format<weight_format::fp8>(p, expert_count, most_rows, multiprocessors, stream);
    case weight_format::q8_0:
      return launch_format<weight_format::q8_0>(p, expert_count, most_rows, multiprocessors,
                                                stream);
    case weight_format::q4_0:
      return launch_format<weight_format::q4_0>(p, expert_count, most_rows, multiprocessors,
                                                stream);
    case weight_format::q4_1:
      return launch_format<weight_format::q4_1>(p, expert_count, most_rows, multiprocessors,
                                                stream);
  }
}

}  // namespace tandem::kernels::cuda
