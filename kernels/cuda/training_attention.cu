// Attention over packed rows in float32 (Dao et al. 2022, arXiv:2205.14135, on the ordinary cores):
// a block takes a tile of a span's rows and a query head and goes through the tiles of keys before
// them. Must match kernels/cpu to rounding. Nothing the size of T x T is kept; traffic is H floats
// for each key and value, tile and query head, mostly from L2.
#include "kernels/cuda/attention_cache.cuh"
#include "kernels/cuda/rounded_attention.cuh"
#include "kernels/op_checks.hpp"

#include <algorithm>

namespace tandem::kernels::cuda {
namespace {

struct packed_args {
  const float* qkv;
  std::int64_t stride;
  bool wide;
  float* out;
  std::int64_t out_stride;
  float* lse;
  const span_tile* tiles;
  int query_heads;
  int key_heads;
  int head_size;
  int window;
  float scale;
};

template <int Columns, int Tile>
constexpr int shared_floats = 2 * Tile* tile_stride<Columns> + Tile*(Tile + 4);

template <int Columns, int Tile>
__global__ void __launch_bounds__(tile_threads, Columns <= 128 ? 2 : 1)
    attended_tiles(const __grid_constant__ packed_args args) {
  extern __shared__ float4 shared[];
  constexpr int rows = Tile / 16;  // of a thread
  float* const queries = reinterpret_cast<float*>(shared);
  float* const others = queries + Tile * tile_stride<Columns>;  // keys, then values
  float* const weights = others + Tile * tile_stride<Columns>;
  const span_tile tile = args.tiles[blockIdx.x];
  const int head = static_cast<int>(blockIdx.y);
  const int key_head = args.query_heads + head / (args.query_heads / args.key_heads);
  const int H = args.head_size;
  const int ty = static_cast<int>(threadIdx.x) / 16;
  const int tx = static_cast<int>(threadIdx.x) % 16;
  const float* const span = args.qkv + tile.first_row * args.stride;
  const auto head_at = [&](int index) {
    return head_rows{span + std::int64_t{index} * H, args.stride, args.wide};
  };
  take_rows<Columns, Tile>(head_at(head), tile.begin, tile.row_count, H, queries);

  float largest[rows];
  float sums[rows];
  float4 out[rows][Columns / 64];
#pragma unroll
  for (int i = 0; i < rows; ++i) {
    largest[i] = -INFINITY;
    sums[i] = 0.0F;
#pragma unroll
    for (float4& value : out[i]) value = float4{0.0F, 0.0F, 0.0F, 0.0F};
  }
  const int first = args.window > 0 ? max(0, tile.begin + 1 - args.window) / Tile * Tile : 0;
  for (int begin = first; begin <= tile.begin; begin += Tile) {
    __syncthreads();
    take_rows<Columns, Tile>(head_at(key_head), begin, tile.row_count, H, others);
    __syncthreads();
    float scores[rows][Tile / 16];
    dot_rows<Columns>(queries, others, scores);
#pragma unroll
    for (int i = 0; i < rows; ++i) {
      const int row = ty * rows + i;
      float most = largest[i];
#pragma unroll
      for (int j = 0; j < Tile / 16; ++j) {
        const bool seen = sees(tile.begin + row, begin + tx + 16 * j, args.window);
        scores[i][j] = seen ? scores[i][j] * args.scale : -INFINITY;
        most = fmaxf(most, scores[i][j]);
      }
#pragma unroll
      for (int step = 8; step > 0; step /= 2)
        most = fmaxf(most, __shfl_xor_sync(whole_warp, most, step));
      const float reference = most == -INFINITY ? 0.0F : most;
      const float kept = expf(largest[i] - reference);
      largest[i] = most;
      sums[i] *= kept;
#pragma unroll
      for (float4& value : out[i]) {
        value.x *= kept;
        value.y *= kept;
        value.z *= kept;
        value.w *= kept;
      }
#pragma unroll
      for (int j = 0; j < Tile / 16; ++j) {
        const float weight = expf(scores[i][j] - reference);
        sums[i] += weight;
        weights[row * (Tile + 4) + tx + 16 * j] = weight;
      }
    }
    __syncthreads();
    take_rows<Columns, Tile>(head_at(key_head + args.key_heads), begin, tile.row_count, H, others);
    __syncthreads();
    add_weighted<Columns, rows, Tile>(weights, others, out);
  }
#pragma unroll
  for (int i = 0; i < rows; ++i) {
    float sum = sums[i];
#pragma unroll
    for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(whole_warp, sum, step);
    const int row = tile.begin + ty * rows + i;
    if (row >= tile.row_count) continue;
    const std::int64_t t = std::int64_t{tile.first_row} + row;
    put_columns<Columns>(out[i], 1.0F / sum, H,
                         args.out + t * args.out_stride + std::int64_t{head} * H);
    if (tx == 0) args.lse[t * args.query_heads + head] = largest[i] + logf(sum);
  }
}

}  // namespace

std::vector<span_tile> tiles_of(std::span<const packed_span> spans, int tile_rows,
                                bool early_rows_first) {
  std::vector<span_tile> tiles;
  for (const packed_span& span : spans) {
    for (std::int64_t begin = 0; begin < span.row_count; begin += tile_rows)
      tiles.push_back({static_cast<std::int32_t>(span.first_row),
                       static_cast<std::int32_t>(span.row_count),
                       static_cast<std::int32_t>(begin)});
  }
  const auto work = [&](const span_tile& tile) {
    return early_rows_first ? tile.row_count - tile.begin : tile.begin;
  };
  std::stable_sort(tiles.begin(), tiles.end(),
                   [&](const span_tile& a, const span_tile& b) { return work(a) > work(b); });
  return tiles;
}

void cuda_device::packed_attention(rows_in qkv_TX, std::span<const packed_span> spans,
                                   const attention_shape& shape, int key_heads, int head_size,
                                   rows_out out_TX, float* lse_TN) {
  if (qkv_TX.rows == 0) return;
  require(checks::packed_attention(limits_, qkv_TX, spans, shape, key_heads, head_size,
                                   largest_head, out_TX));

  if (rounds() && attends_rounded(head_size)) {
    const std::vector<span_tile> tiles = tiles_of(spans, attention_rows, false);
    rounded_attention how{};
    how.qkv = as_rounded(qkv_TX);
    how.out = out_TX.data;
    how.out_stride = out_TX.stride;
    how.lse = lse_TN;
    how.tiles = upload(std::span<const span_tile>(tiles));
    how.tile_count = static_cast<std::int32_t>(tiles.size());
    how.query_heads = shape.query_heads;
    how.key_heads = key_heads;
    how.head_size = head_size;
    how.window = shape.window;
    how.scale = shape.scale;
    attend(how, stream_);
    end_scratch();
    return;
  }
  packed_args args{qkv_TX.data, qkv_TX.stride,     aligned_rows(qkv_TX.data, qkv_TX.stride),
                   out_TX.data, out_TX.stride,     lse_TN,
                   nullptr,     shape.query_heads, key_heads,
                   head_size,   shape.window,      shape.scale};
  const auto launch = [&](auto kernel, int tile_rows, int floats) {
    const std::vector<span_tile> tiles = tiles_of(spans, tile_rows, false);
    args.tiles = upload(std::span<const span_tile>(tiles));
    const int bytes = floats * static_cast<int>(sizeof(float));
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
          "shared memory of packed_attention");
    const dim3 grid{static_cast<unsigned>(tiles.size()), static_cast<unsigned>(shape.query_heads)};
    kernel<<<grid, tile_threads, bytes, stream_>>>(args);
    launched("packed_attention", qkv_TX.rows, qkv_TX.columns);
  };
  if (head_size <= 64) {
    launch(attended_tiles<64, 64>, 64, shared_floats<64, 64>);
  } else if (head_size <= 128) {
    launch(attended_tiles<128, 64>, 64, shared_floats<128, 64>);
  } else {
    launch(attended_tiles<256, 32>, 32, shared_floats<256, 32>);
  }
}

}  // namespace tandem::kernels::cuda
