// A block of four warps keeps 64 rows of a head, a warp 16 of them, and the others pass by in
// shared memory, two tiles at a time so that one is on its way while the other is used. Scores
// become weights in the registers they were summed in. Each sum has one owner and one order (see
// training_attention_backward.cu), and tiles lie at multiples within the span, so a row's bits are
// its own. Traffic: H rounded numbers for each key and value, tile and query head, mostly from L2.
#include "kernels/cuda/rounded_attention.cuh"

#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/products_mma.cuh"
#include "kernels/cuda/rounding.cuh"

namespace tandem::kernels::cuda {
namespace {

constexpr int threads = 128;
constexpr float log2_of_e = 1.4426950408889634F;

// A tile in shared memory: rows of Columns numbers, pieces of 16 bytes swizzled by the row.
template <int Columns>
__device__ unsigned place(int row, int chunk) {
  return static_cast<unsigned>(row * 2 * Columns + (chunk ^ (row & 7)) * 16);
}
template <int Columns, int Rows>
constexpr int tile_size = Rows * 2 * Columns;

// A step of two chunks along a row, from where a lane is: tiles lie on lines of their rows' size.
__device__ unsigned chunks_on(unsigned at, int pairs) {
  return at ^ static_cast<unsigned>(pairs * 32);
}

// A head's column of a span.
struct head_column {
  const __nv_bfloat16* data;
  std::int64_t stride;
};
__device__ head_column column_of(const rounded_rows& rows, const span_tile& tile, int head,
                                 int head_size) {
  return {reinterpret_cast<const __nv_bfloat16*>(rows.data) + tile.first_row * rows.columns +
              std::int64_t{head} * head_size,
          rows.columns};
}

// Rows [begin, begin + Rows) of the span; zeros beyond it and beyond the head.
template <int Columns, int Rows>
__device__ void bring(const head_column& from, int begin, int count, int head_size, unsigned tile) {
  constexpr int chunks = Columns / 8;
#pragma unroll
  for (int i = 0; i < Rows * chunks / threads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * threads;
    const int row = at / chunks;
    const int chunk = at % chunks;
    const bool there = begin + row < count && chunk * 8 < head_size;
    copy_16(tile + place<Columns>(row, chunk),
            from.data + (there ? (begin + row) * from.stride + chunk * 8 : 0), there);
  }
}

// sums = a b^T of a warp's 16 rows of `a` with all rows of `b`.
template <int Columns, int Others>
__device__ void dot_rows(unsigned a, int first_row, unsigned b, float (&sums)[Others / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (auto& sum : sums) {
#pragma unroll
    for (float& s : sum) s = 0.0F;
  }
  const unsigned of_lane = a + place<Columns>(first_row + lane % 16, lane / 16);
  const unsigned of_others = b + place<Columns>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
  for (int step = 0; step < Columns / 16; ++step) {
    std::uint32_t of_a[4];
    load_matrices(of_a, chunks_on(of_lane, step));
#pragma unroll
    for (int pair = 0; pair < Others / 16; ++pair) {
      std::uint32_t of_b[4];
      load_matrices(of_b, chunks_on(of_others, step) + pair * 16 * 2 * Columns);
      multiply_bf16(sums[2 * pair], of_a[0], of_a[1], of_a[2], of_a[3], of_b[0], of_b[1]);
      multiply_bf16(sums[2 * pair + 1], of_a[0], of_a[1], of_a[2], of_a[3], of_b[2], of_b[3]);
    }
  }
}

// sums += weights b, where weights are what dot_rows made, rounded.
template <int Columns, int Others>
__device__ void add_weighted(const float (&weights)[Others / 8][4], unsigned b,
                             float (&sums)[Columns / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const unsigned of_lane = b + place<Columns>(lane / 8 % 2 * 8 + lane % 8, lane / 16);
#pragma unroll
  for (int step = 0; step < Others / 16; ++step) {
    const auto& low = weights[2 * step];
    const auto& high = weights[2 * step + 1];
    const std::uint32_t a0 = two_bf16(low[0], low[1]);
    const std::uint32_t a1 = two_bf16(low[2], low[3]);
    const std::uint32_t a2 = two_bf16(high[0], high[1]);
    const std::uint32_t a3 = two_bf16(high[2], high[3]);
#pragma unroll
    for (int pair = 0; pair < Columns / 16; ++pair) {
      std::uint32_t of_b[4];
      load_matrices_turned(of_b, chunks_on(of_lane, pair) + step * 16 * 2 * Columns);
      multiply_bf16(sums[2 * pair], a0, a1, a2, a3, of_b[0], of_b[1]);
      multiply_bf16(sums[2 * pair + 1], a0, a1, a2, a3, of_b[2], of_b[3]);
    }
  }
}

// A lane holds of each eight columns: two neighbours of row lane / 4, then of the row eight on.
__device__ int row_of(int i) { return static_cast<int>(threadIdx.x) % 32 / 4 + i / 2 * 8; }
__device__ int column_of(int eight, int i) {
  return eight * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + i % 2;
}

// A warp's rows from `first` on, of a head's column.
template <int Columns>
__device__ void put_rows(const float (&sums)[Columns / 8][4], const float (&factor)[2], int first,
                         int count, int head_size, float* column, std::int64_t stride) {
#pragma unroll
  for (int eight = 0; eight < Columns / 8; ++eight) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = first + row_of(i);
      const int h = column_of(eight, i);
      if (row < count && h < head_size) column[row * stride + h] = sums[eight][i] * factor[i / 2];
    }
  }
}

// The larger, or the sum, of a row's four lanes.
__device__ float largest_of_row(float v) {
  v = fmaxf(v, __shfl_xor_sync(whole_warp, v, 1));
  return fmaxf(v, __shfl_xor_sync(whole_warp, v, 2));
}
__device__ float sum_of_row(float v) {
  v += __shfl_xor_sync(whole_warp, v, 1);
  return v + __shfl_xor_sync(whole_warp, v, 2);
}

template <int Columns, int Others>
__global__ __launch_bounds__(threads) void attended(const __grid_constant__ rounded_attention how) {
  extern __shared__ __align__(256) uint4 shared_memory[];
  constexpr int size = tile_size<Columns, Others>;
  const unsigned queries = shared_address(shared_memory);
  const auto keys_at = [&](int turn) {
    return queries + tile_size<Columns, attention_rows> + turn % 2 * 2 * size;
  };
  const span_tile tile = how.tiles[blockIdx.x];
  const int head = static_cast<int>(blockIdx.y);
  const int key_head = how.query_heads + head / (how.query_heads / how.key_heads);
  const int H = how.head_size;
  const int first_row = static_cast<int>(threadIdx.x) / 32 * 16;
  const head_column keys = column_of(how.qkv, tile, key_head, H);
  const head_column values = column_of(how.qkv, tile, key_head + how.key_heads, H);
  const int first = how.window > 0 ? max(0, tile.begin + 1 - how.window) / Others * Others : 0;
  const int end = min(tile.begin + attention_rows, tile.row_count);
  const int turns = (end - first + Others - 1) / Others;
  const auto bring_turn = [&](int turn) {
    if (turn < turns) {
      const int begin = first + turn * Others;
      bring<Columns, Others>(keys, begin, tile.row_count, H, keys_at(turn));
      bring<Columns, Others>(values, begin, tile.row_count, H, keys_at(turn) + size);
    }
    close_copies();
  };
  bring<Columns, attention_rows>(column_of(how.qkv, tile, head, H), tile.begin, tile.row_count, H,
                                 queries);
  bring_turn(0);

  float out[Columns / 8][4] = {};
  float largest[2] = {-INFINITY, -INFINITY};
  float sums[2] = {};
  const float scale = how.scale * log2_of_e;
#pragma unroll 1
  for (int turn = 0; turn < turns; ++turn) {
    bring_turn(turn + 1);
    await_copies();
    float scores[Others / 8][4];
    dot_rows<Columns, Others>(queries, first_row, keys_at(turn), scores);
    const int begin = first + turn * Others;
    float most[2] = {largest[0], largest[1]};
#pragma unroll
    for (int eight = 0; eight < Others / 8; ++eight) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const bool seen =
            sees(tile.begin + first_row + row_of(i), begin + column_of(eight, i), how.window);
        scores[eight][i] = seen ? scores[eight][i] * scale : -INFINITY;
        most[i / 2] = fmaxf(most[i / 2], scores[eight][i]);
      }
    }
    float reference[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      most[half] = largest_of_row(most[half]);
      reference[half] = most[half] == -INFINITY ? 0.0F : most[half];
      const float kept = exp2f(largest[half] - reference[half]);
      largest[half] = most[half];
      sums[half] *= kept;
#pragma unroll
      for (auto& eight : out) {
        eight[2 * half] *= kept;
        eight[2 * half + 1] *= kept;
      }
    }
#pragma unroll
    for (auto& eight : scores) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        eight[i] = exp2f(eight[i] - reference[i / 2]);
        sums[i / 2] += eight[i];
      }
    }
    add_weighted<Columns, Others>(scores, keys_at(turn) + size, out);
    __syncthreads();  // nobody reads what the next turn but one brings
  }
  const float whole[2] = {sum_of_row(sums[0]), sum_of_row(sums[1])};
  const float factor[2] = {1.0F / whole[0], 1.0F / whole[1]};
  put_rows<Columns>(out, factor, tile.begin + first_row, tile.row_count, H,
                    how.out + tile.first_row * how.out_stride + std::int64_t{head} * H,
                    how.out_stride);
  if (threadIdx.x % 4 != 0) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = tile.begin + first_row + row_of(half * 2);
    if (row < tile.row_count)
      how.lse[(std::int64_t{tile.first_row} + row) * how.query_heads + head] =
          largest[half] / log2_of_e + logf(whole[half]);
  }
}

// Of queries (Keys false) a block keeps q and dout, and k and v pass by; of keys it keeps k and v,
// and q and dout of each query head of the group pass by.
template <int Columns, int Others, bool Keys>
__global__ __launch_bounds__(threads) void backward(const __grid_constant__ rounded_attention how) {
  extern __shared__ __align__(256) uint4 shared_memory[];
  constexpr int kept_size = tile_size<Columns, attention_rows>;
  constexpr int size = tile_size<Columns, Others>;
  __shared__ float lse_of[2][Others];
  __shared__ float along_of[2][Others];
  const unsigned kept_a = shared_address(shared_memory);  // q, or k
  const unsigned kept_b = kept_a + kept_size;             // dout, or v
  const auto passing = [&](int turn) { return kept_b + kept_size + turn % 2 * 2 * size; };
  const span_tile tile = how.tiles[blockIdx.x];
  const int group = how.query_heads / how.key_heads;
  const int head = static_cast<int>(blockIdx.y);  // of keys, or of queries
  const int key_head = how.query_heads + (Keys ? head : head / group);
  const int H = how.head_size;
  const int first_row = static_cast<int>(threadIdx.x) / 32 * 16;
  const head_column keys = column_of(how.qkv, tile, key_head, H);
  const head_column values = column_of(how.qkv, tile, key_head + how.key_heads, H);

  // Whom the kept rows see, or who sees them.
  const int last = min(tile.begin + attention_rows, tile.row_count);
  int first = 0;
  int end = last;
  if constexpr (Keys) {
    first = tile.begin;
    end = tile.row_count;
    if (how.window > 0) end = min(end, last - 1 + how.window);
  } else if (how.window > 0) {
    first = max(0, tile.begin + 1 - how.window) / Others * Others;
  }
  const int turns_each = (end - first + Others - 1) / Others;
  const int turns = turns_each * (Keys ? group : 1);
  const auto query_head = [&](int turn) { return Keys ? head * group + turn / turns_each : head; };
  const std::int64_t first_query = std::int64_t{tile.first_row} * how.query_heads;
  const auto bring_turn = [&](int turn) {
    if (turn < turns) {
      const int begin = first + turn % turns_each * Others;
      const int of = query_head(turn);
      bring<Columns, Others>(Keys ? column_of(how.qkv, tile, of, H) : keys, begin, tile.row_count,
                             H, passing(turn));
      bring<Columns, Others>(Keys ? column_of(how.dout, tile, of, H) : values, begin,
                             tile.row_count, H, passing(turn) + size);
      if (Keys && threadIdx.x < Others) {
        const int query = begin + static_cast<int>(threadIdx.x);
        const std::int64_t at =
            first_query + (query < tile.row_count ? std::int64_t{query} * how.query_heads : 0) + of;
        lse_of[turn % 2][threadIdx.x] = how.lse[at] * log2_of_e;
        along_of[turn % 2][threadIdx.x] = how.along[at];
      }
    }
    close_copies();
  };
  bring<Columns, attention_rows>(Keys ? keys : column_of(how.qkv, tile, head, H), tile.begin,
                                 tile.row_count, H, kept_a);
  bring<Columns, attention_rows>(Keys ? values : column_of(how.dout, tile, head, H), tile.begin,
                                 tile.row_count, H, kept_b);
  bring_turn(0);

  float own_lse[2] = {};
  float own_along[2] = {};
  if constexpr (!Keys) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int query = min(tile.begin + first_row + row_of(half * 2), tile.row_count - 1);
      const std::int64_t at = first_query + std::int64_t{query} * how.query_heads + head;
      own_lse[half] = how.lse[at] * log2_of_e;
      own_along[half] = how.along[at];
    }
  }
  float sums_a[Columns / 8][4] = {};             // dq, or dk
  float sums_b[Keys ? Columns / 8 : 1][4] = {};  // dv
  const float scale = how.scale * log2_of_e;
#pragma unroll 1
  for (int turn = 0; turn < turns; ++turn) {
    bring_turn(turn + 1);
    await_copies();
    float p[Others / 8][4];
    float ds[Others / 8][4];
    dot_rows<Columns, Others>(kept_a, first_row, passing(turn), p);
    dot_rows<Columns, Others>(kept_b, first_row, passing(turn) + size, ds);
    const int begin = first + turn % turns_each * Others;
#pragma unroll
    for (int eight = 0; eight < Others / 8; ++eight) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int mine = tile.begin + first_row + row_of(i);
        const int other = begin + column_of(eight, i);
        const int query = Keys ? other : mine;
        const float lse = Keys ? lse_of[turn % 2][column_of(eight, i)] : own_lse[i / 2];
        const float along = Keys ? along_of[turn % 2][column_of(eight, i)] : own_along[i / 2];
        const bool seen = query < tile.row_count && sees(query, Keys ? mine : other, how.window);
        p[eight][i] = seen ? exp2f(p[eight][i] * scale - lse) : 0.0F;
        ds[eight][i] = seen ? how.scale * (p[eight][i] * (ds[eight][i] - along)) : 0.0F;
      }
    }
    if constexpr (Keys) add_weighted<Columns, Others>(p, passing(turn) + size, sums_b);
    add_weighted<Columns, Others>(ds, passing(turn), sums_a);
    __syncthreads();  // nobody reads what the next turn but one brings
  }
  constexpr float whole[2] = {1.0F, 1.0F};
  float* const to = how.dqkv + tile.first_row * how.dqkv_stride;
  put_rows<Columns>(sums_a, whole, tile.begin + first_row, tile.row_count, H,
                    to + std::int64_t{Keys ? key_head : head} * H, how.dqkv_stride);
  if constexpr (Keys)
    put_rows<Columns>(sums_b, whole, tile.begin + first_row, tile.row_count, H,
                      to + std::int64_t{key_head + how.key_heads} * H, how.dqkv_stride);
}

void launch(void (*kernel)(rounded_attention), const rounded_attention& how, int heads, int bytes,
            const char* what, cudaStream_t stream) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "shared memory of attention", 1, bytes);
  const dim3 grid{static_cast<unsigned>(how.tile_count), static_cast<unsigned>(heads)};
  kernel<<<grid, threads, static_cast<std::size_t>(bytes), stream>>>(how);
  launched(what, how.qkv.rows, how.qkv.columns);
}

}  // namespace

void attend(const rounded_attention& how, cudaStream_t stream) {
  if (how.head_size <= 64)
    launch(attended<64, 64>, how, how.query_heads, 5 * tile_size<64, 64>, "rounded attention",
           stream);
  else
    launch(attended<128, 32>, how, how.query_heads,
           tile_size<128, attention_rows> + 4 * tile_size<128, 32>, "rounded attention", stream);
}

void attend_backward_queries(const rounded_attention& how, cudaStream_t stream) {
  constexpr const char* what = "rounded attention's dq";
  if (how.head_size <= 64)
    launch(backward<64, 64, false>, how, how.query_heads, 6 * tile_size<64, 64>, what, stream);
  else
    launch(backward<128, 32, false>, how, how.query_heads,
           2 * tile_size<128, attention_rows> + 4 * tile_size<128, 32>, what, stream);
}

void attend_backward_keys(const rounded_attention& how, cudaStream_t stream) {
  constexpr const char* what = "rounded attention's dk and dv";
  if (how.head_size <= 64)
    launch(backward<64, 64, true>, how, how.key_heads, 6 * tile_size<64, 64>, what, stream);
  else
    launch(backward<128, 32, true>, how, how.key_heads,
           2 * tile_size<128, attention_rows> + 4 * tile_size<128, 32>, what, stream);
}

}  // namespace tandem::kernels::cuda
