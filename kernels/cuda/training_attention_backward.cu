// Backward of attention over packed rows, in float32: p = exp(scale q.k - lse), dp = dout.v,
// ds = scale p (dp - dout.out); dq = sum ds k, dk = sum ds q, dv = sum p dout. Two passes compute
// p and ds each for itself, so that every sum has one owner and one order: queries go through the
// keys before them; keys through the heads of their group, and each head's queries, in order.
#include "kernels/cuda/attention_cache.cuh"
#include "kernels/cuda/rounded_attention.cuh"
#include "kernels/op_checks.hpp"

namespace tandem::kernels::cuda {
namespace {

struct backward_args {
  const float* qkv;
  std::int64_t stride;
  bool wide;
  const float* dout;
  std::int64_t dout_stride;
  bool dout_wide;
  const float* out;
  std::int64_t out_stride;
  const float* lse;
  float* along;  // dout.out of a row and query head
  float* dqkv;
  std::int64_t dqkv_stride;
  const span_tile* tiles;
  int query_heads;
  int key_heads;
  int head_size;
  int window;
  float scale;

  __device__ head_rows head_at(const span_tile& tile, int head) const {
    return {qkv + tile.first_row * stride + std::int64_t{head} * head_size, stride, wide};
  }
  __device__ head_rows dout_at(const span_tile& tile, int head) const {
    return {dout + tile.first_row * dout_stride + std::int64_t{head} * head_size, dout_stride,
            dout_wide};
  }
};

constexpr int along_warps = 8;

__global__ void dots_of_heads(const __grid_constant__ backward_args args) {
  const std::int64_t row = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y) * along_warps + static_cast<int>(threadIdx.x) / 32;
  if (head >= args.query_heads) return;
  const std::int64_t column = std::int64_t{head} * args.head_size;
  const float* const d = args.dout + row * args.dout_stride + column;
  const float* const o = args.out + row * args.out_stride + column;
  float sum = 0.0F;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int h = lane; h < args.head_size; h += 32) sum += d[h] * o[h];
  sum = warp_sum(sum);
  if (lane == 0) args.along[row * args.query_heads + head] = sum;
}

// A block keeps Rows rows and goes through others, Others at a time. Of queries (Keys false) it
// keeps q and dout and goes through k and v; of keys the other way round.
template <int Columns, int Rows, int Others>
struct backward_room {
  static constexpr int kept = Rows * tile_stride<Columns>;
  static constexpr int passing = Others * tile_stride<Columns>;
  static constexpr int floats = 2 * kept + 2 * passing + Rows * (Others + 4);
};

template <int Columns, int Rows, int Others, bool Keys>
__global__ void __launch_bounds__(tile_threads, Columns <= 128 ? 2 : 1)
    backward_tiles(const __grid_constant__ backward_args args) {
  extern __shared__ float4 shared[];
  using room = backward_room<Columns, Rows, Others>;
  constexpr int rows = Rows / 16;  // of a thread
  constexpr int others = Others / 16;
  float* const kept_a = reinterpret_cast<float*>(shared);  // q, or k
  float* const kept_b = kept_a + room::kept;               // dout, or v
  float* const passing_a = kept_b + room::kept;            // k, or q
  float* const passing_b = passing_a + room::passing;      // v, or dout
  float* const weights = passing_b + room::passing;
  const span_tile tile = args.tiles[blockIdx.x];
  const int group = args.query_heads / args.key_heads;
  const int head = static_cast<int>(blockIdx.y);  // of keys, or of queries
  const int key_head = args.query_heads + (Keys ? head : head / group);
  const int H = args.head_size;
  const int ty = static_cast<int>(threadIdx.x) / 16;
  const int tx = static_cast<int>(threadIdx.x) % 16;

  const head_rows keys = args.head_at(tile, key_head);
  const head_rows values = args.head_at(tile, key_head + args.key_heads);
  if constexpr (Keys) {
    take_rows<Columns, Rows>(keys, tile.begin, tile.row_count, H, kept_a);
    take_rows<Columns, Rows>(values, tile.begin, tile.row_count, H, kept_b);
  } else {
    take_rows<Columns, Rows>(args.head_at(tile, head), tile.begin, tile.row_count, H, kept_a);
    take_rows<Columns, Rows>(args.dout_at(tile, head), tile.begin, tile.row_count, H, kept_b);
  }
  float4 sums_a[rows][Columns / 64];  // dq, or dk
  float4 sums_b[Keys ? rows : 1][Columns / 64];
#pragma unroll
  for (auto& row : sums_a) {
#pragma unroll
    for (float4& sum : row) sum = float4{0.0F, 0.0F, 0.0F, 0.0F};
  }
#pragma unroll
  for (auto& row : sums_b) {
#pragma unroll
    for (float4& sum : row) sum = float4{0.0F, 0.0F, 0.0F, 0.0F};
  }

  const float* const lse_of_span = args.lse + std::int64_t{tile.first_row} * args.query_heads;
  const float* const along_of_span = args.along + std::int64_t{tile.first_row} * args.query_heads;

  // Whom the kept rows see, or who sees them.
  const int last = min(tile.begin + Rows, tile.row_count);
  int first_other = 0;
  int end_other = last;
  if constexpr (Keys) {
    first_other = tile.begin / Others * Others;
    end_other = tile.row_count;
    if (args.window > 0 && last - 1 < end_other - args.window) end_other = last - 1 + args.window;
  } else {
    if (args.window > 0) first_other = max(0, tile.begin + 1 - args.window) / Others * Others;
  }
  for (int g = 0; g < (Keys ? group : 1); ++g) {
    const int query_head = Keys ? head * group + g : head;
    const head_rows a = Keys ? args.head_at(tile, query_head) : keys;
    const head_rows b = Keys ? args.dout_at(tile, query_head) : values;
    for (int begin = first_other; begin < end_other; begin += Others) {
      __syncthreads();
      take_rows<Columns, Others>(a, begin, tile.row_count, H, passing_a);
      take_rows<Columns, Others>(b, begin, tile.row_count, H, passing_b);
      __syncthreads();
      float p[rows][others];
      float ds[rows][others];
      dot_rows<Columns>(kept_a, passing_a, p);
      dot_rows<Columns>(kept_b, passing_b, ds);
      // Of the queries among a thread's rows: the others, or its own.
      constexpr int queries = Keys ? others : rows;
      float lse[queries];
      float along[queries];
#pragma unroll
      for (int q = 0; q < queries; ++q) {
        const int query = Keys ? begin + tx + 16 * q : tile.begin + ty * rows + q;
        const int at = query < tile.row_count ? query * args.query_heads : 0;
        lse[q] = lse_of_span[at + query_head];
        along[q] = along_of_span[at + query_head];
      }
#pragma unroll
      for (int i = 0; i < rows; ++i) {
#pragma unroll
        for (int j = 0; j < others; ++j) {
          const int mine = tile.begin + ty * rows + i;
          const int other = begin + tx + 16 * j;
          const int query = Keys ? other : mine;
          const int q = Keys ? j : i;
          const bool seen = query < tile.row_count && sees(query, Keys ? mine : other, args.window);
          p[i][j] = seen ? expf(args.scale * p[i][j] - lse[q]) : 0.0F;
          ds[i][j] = seen ? args.scale * (p[i][j] * (ds[i][j] - along[q])) : 0.0F;
        }
      }
      const auto lay_out = [&](const float(&from)[rows][others]) {
#pragma unroll
        for (int i = 0; i < rows; ++i) {
#pragma unroll
          for (int j = 0; j < others; ++j)
            weights[(ty * rows + i) * (Others + 4) + tx + 16 * j] = from[i][j];
        }
      };
      if constexpr (Keys) {
        lay_out(p);
        __syncthreads();
        add_weighted<Columns, rows, Others>(weights, passing_b, sums_b);
        __syncthreads();
      }
      lay_out(ds);
      __syncthreads();
      add_weighted<Columns, rows, Others>(weights, passing_a, sums_a);
    }
  }
#pragma unroll
  for (int i = 0; i < rows; ++i) {
    const int row = tile.begin + ty * rows + i;
    if (row >= tile.row_count) continue;
    float* const to = args.dqkv + (std::int64_t{tile.first_row} + row) * args.dqkv_stride;
    put_columns<Columns>(sums_a[i], 1.0F, H, to + std::int64_t{Keys ? key_head : head} * H);
    if constexpr (Keys)
      put_columns<Columns>(sums_b[i], 1.0F, H, to + std::int64_t{key_head + args.key_heads} * H);
  }
}

}  // namespace

void cuda_device::packed_attention_backward(rows_in dout_TX, rows_in qkv_TX, rows_in out_TX,
                                            const float* lse_TN, std::span<const packed_span> spans,
                                            const attention_shape& shape, int key_heads,
                                            int head_size, rows_out dqkv_TX) {
  if (qkv_TX.rows == 0) return;
  require(checks::packed_attention_backward(limits_, dout_TX, qkv_TX, out_TX, spans, shape,
                                            key_heads, head_size, largest_head, dqkv_TX));

  backward_args args{};
  args.qkv = qkv_TX.data;
  args.stride = qkv_TX.stride;
  args.wide = aligned_rows(qkv_TX.data, qkv_TX.stride);
  args.dout = dout_TX.data;
  args.dout_stride = dout_TX.stride;
  args.dout_wide = aligned_rows(dout_TX.data, dout_TX.stride);
  args.out = out_TX.data;
  args.out_stride = out_TX.stride;
  args.lse = lse_TN;
  args.along = scratch<float>(qkv_TX.rows * shape.query_heads);
  args.dqkv = dqkv_TX.data;
  args.dqkv_stride = dqkv_TX.stride;
  args.query_heads = shape.query_heads;
  args.key_heads = key_heads;
  args.head_size = head_size;
  args.window = shape.window;
  args.scale = shape.scale;

  const dim3 dots{static_cast<unsigned>(qkv_TX.rows),
                  static_cast<unsigned>((shape.query_heads + along_warps - 1) / along_warps)};
  dots_of_heads<<<dots, 32 * along_warps, 0, stream_>>>(args);
  launched("attention's backward", qkv_TX.rows, qkv_TX.columns);
  if (rounds() && attends_rounded(head_size)) {
    rounded_attention how{};
    how.qkv = as_rounded(qkv_TX);
    how.dout = as_rounded(dout_TX);
    how.lse = const_cast<float*>(lse_TN);
    how.along = args.along;
    how.dqkv = dqkv_TX.data;
    how.dqkv_stride = dqkv_TX.stride;
    how.query_heads = shape.query_heads;
    how.key_heads = key_heads;
    how.head_size = head_size;
    how.window = shape.window;
    how.scale = shape.scale;
    for (const bool of_keys : {false, true}) {
      const std::vector<span_tile> tiles = tiles_of(spans, attention_rows, of_keys);
      how.tiles = upload(std::span<const span_tile>(tiles));
      how.tile_count = static_cast<std::int32_t>(tiles.size());
      of_keys ? attend_backward_keys(how, stream_) : attend_backward_queries(how, stream_);
    }
    end_scratch();
    return;
  }
  const auto launch = [&](auto kernel, int rows, int floats, bool of_keys) {
    const std::vector<span_tile> tiles = tiles_of(spans, rows, of_keys);
    args.tiles = upload(std::span<const span_tile>(tiles));
    const int bytes = floats * static_cast<int>(sizeof(float));
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
          "shared memory of attention's backward");
    const dim3 grid{static_cast<unsigned>(tiles.size()),
                    static_cast<unsigned>(of_keys ? key_heads : shape.query_heads)};
    kernel<<<grid, tile_threads, bytes, stream_>>>(args);
    launched(of_keys ? "attention's dk and dv" : "attention's dq", qkv_TX.rows, qkv_TX.columns);
  };
  if (head_size <= 64) {
    launch(backward_tiles<64, 64, 32, false>, 64, backward_room<64, 64, 32>::floats, false);
    launch(backward_tiles<64, 64, 32, true>, 64, backward_room<64, 64, 32>::floats, true);
  } else if (head_size <= 128) {
    launch(backward_tiles<128, 64, 32, false>, 64, backward_room<128, 64, 32>::floats, false);
    launch(backward_tiles<128, 64, 32, true>, 64, backward_room<128, 64, 32>::floats, true);
  } else {
    // 100 KiB of shared memory: not on GPUs made for desks.
    launch(backward_tiles<256, 32, 16, false>, 32, backward_room<256, 32, 16>::floats, false);
    launch(backward_tiles<256, 32, 16, true>, 32, backward_room<256, 32, 16>::floats, true);
  }
  end_scratch();
}

}  // namespace tandem::kernels::cuda
