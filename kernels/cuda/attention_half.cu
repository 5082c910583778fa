// Attention over float16 keys and values by tensor cores, sums in float32. A warp holds 16 queries
// that share a key head (rows times the query heads of a group); a block of warps goes through
// tiles of 64 positions in shared memory: while it multiplies with one kind (keys, values) the
// other's next tile is on its way. Must match kernels/cpu to float16's rounding of queries and
// weights.
//
// Traffic: each block reads its span's keys and values once, 4 H bytes a position and key head. At
// decode (one warp a block) that is all there is; with 32 to 35 KiB of shared memory a block at
// H = 128 six are resident and 100 KB are in flight on each multiprocessor, enough for HBM.
#include "kernels/cuda/attention_splits.cuh"
#include "kernels/ensure.hpp"

#include <algorithm>
#include <climits>

namespace tandem::kernels::cuda {
namespace {

constexpr int many_warps = 4;
// Weights are kept times 2^10 (their sum too), so that float16 holds small ones exactly enough.
constexpr float weight_exponent = 10.0F;

// Shared memory: keys, values, and at large heads the queries' fragments. A row of a tile is
// padded by 16 bytes, so that the eight rows of a matrix lie in different banks.
template <int Columns, int Warps>
struct room {
  static constexpr bool queries_in_registers = Columns <= 128;
  static constexpr int row_halves = Columns + 8;
  static constexpr int tile_halves = tile_positions * row_halves;
  static constexpr int query_bytes = queries_in_registers ? 0 : Warps * 32 * (Columns / 16) * 16;
  static constexpr int bytes = 2 * 2 * tile_halves + query_bytes;
};

__device__ void load_matrices(std::uint32_t (&to)[4], const half* row) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}
__device__ void load_matrices_turned(std::uint32_t (&to)[4], const half* row) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}
// c += a b, 16 x 16 times 16 x 8.
__device__ void multiply(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                         std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ std::uint32_t packed_halves(float low, float high) {
  const half2 both = __floats2half2_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&both);
}

// 16 bytes to shared memory, zeros where there is nothing to read.
__device__ void copy_16(half* to, const half* from, bool there) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(address), "l"(from), "r"(there ? 16 : 0)
               : "memory");
}
__device__ void close_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// All but the last group have arrived, and every thread knows.
__device__ void await_copies() {
  asm volatile("cp.async.wait_group 1;" ::: "memory");
  __syncthreads();
}

// The queries of a block: [first, end) of a span's row_count * group, one key head; its splits.
struct block_work {
  device_span span;
  int key_head;
  int first_query;
  int end_query;
  int first_split;
  int end_split;
  int slot;  // of first_split, where the part is left; -1: the splits are folded into out
};

template <int Columns, int Warps>
class attending_block {
 public:
  __device__ attending_block(const attention_args& args, const block_work& work, half* shared)
      : args_(args),
        work_(work),
        keys_(shared),
        values_(shared + shape::tile_halves),
        fragments_(reinterpret_cast<uint4*>(shared + 2 * shape::tile_halves)),
        lane_(static_cast<int>(threadIdx.x) % 32),
        warp_(static_cast<int>(threadIdx.x) / 32),
        head_size_(args.cache.head_size) {
    const int first_row = work.first_query / args.group;
    const int last_row = (work.end_query - 1) / args.group;
    const int begin = visible_from(work.span.first_position + first_row, args.window).begin;
    const int end = work.span.first_position + last_row + 1;
    first_block_ = begin / kv_block_positions;
    end_block_ = (end - 1) / kv_block_positions + 1;
    first_tile_ = max(begin / tile_positions, work.first_split * split_tiles);
    end_tile_ = min((end - 1) / tile_positions + 1, work.end_split * split_tiles);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int query = work.first_query + warp_ * 16 + lane_ / 4 + 8 * i;
      row_[i] = query < work.end_query ? query / args.group : -1;
      head_[i] = work.key_head * args.group + query % args.group;
      visible_[i] = {0, INT_MAX};  // nobody's queries need no mask
      if (row_[i] >= 0) visible_[i] = visible_from(work.span.first_position + row_[i], args.window);
    }
  }

  __device__ void run() {
    __syncthreads();                       // shared memory is free
    if (first_tile_ >= end_tile_) return;  // a split that no row of these sees, nor asks for
    clear_padding();
    take_queries();
    __syncthreads();
    copy_tile(keys_, first_tile_, 0);
    close_copies();
    copy_tile(values_, first_tile_, kv_block_positions * head_size_);
    close_copies();
    for (int tile = first_tile_; tile < end_tile_; ++tile) {
      if (tile == first_tile_ || tile % split_tiles == 0) begin_split();
      attend_tile(tile);
      if (tile + 1 < end_tile_ && (tile + 1) % split_tiles != 0) continue;
      finish_split();
      if (work_.slot >= 0) {
        leave_part();
      } else {
        fold_into_out(tile / split_tiles == first_tile_ / split_tiles, tile + 1 == end_tile_);
      }
    }
  }

 private:
  using shape = room<Columns, Warps>;
  static constexpr int threads = 32 * Warps;
  static constexpr int steps = Columns / 16;
  static constexpr int row_pieces = Columns / 8;  // of 16 bytes; a thread takes one of each row
  static constexpr int rows_at_once = threads / row_pieces;
  static_assert(rows_at_once > 0 && kv_block_positions % rows_at_once == 0);

  // Columns beyond H are multiplied too: they must be zeros, once.
  __device__ void clear_padding() {
    if (head_size_ == Columns) return;
    const int padding = row_pieces - head_size_ / 8;
    for (int i = static_cast<int>(threadIdx.x); i < 2 * tile_positions * padding; i += threads) {
      half* const row = keys_ + i / padding * shape::row_halves;  // values follow the keys
      *reinterpret_cast<uint4*>(row + head_size_ + i % padding * 8) = uint4{0, 0, 0, 0};
    }
  }

  __device__ void copy_tile(half* to, int tile, int offset) const {
    constexpr int blocks = tile_positions / kv_block_positions;
    std::int32_t ids[blocks];
#pragma unroll
    for (int b = 0; b < blocks; ++b) {
      const int block = tile * blocks + b;
      const bool there = block >= first_block_ && block < end_block_;
      ids[b] = there ? args_.spans.blocks[work_.span.first_block + block] : -1;
    }
    const int piece = static_cast<int>(threadIdx.x) % row_pieces;
    const int row = static_cast<int>(threadIdx.x) / row_pieces;
    if (piece >= head_size_ / 8) return;
    half* const here = to + row * shape::row_halves + piece * 8;
    const half* const source = args_.cache.template keys<const half>(0, work_.key_head) + offset +
                               row * head_size_ + piece * 8;
#pragma unroll
    for (int b = 0; b < blocks; ++b) {
      const bool there = ids[b] >= 0;
      const half* from = source + (there ? ids[b] : 0) * (args_.cache.block_stride / 2);
#pragma unroll
      for (int r = 0; r < kv_block_positions; r += rows_at_once) {
        copy_16(here + (b * kv_block_positions + r) * shape::row_halves, from, there);
        from += rows_at_once * head_size_;
      }
    }
  }

  __device__ std::uint32_t query_pair(int i, int column) const {
    if (row_[i] < 0 || column >= head_size_) return 0;
    const float* const q = args_.q + (work_.span.first_row + row_[i]) * args_.q_stride +
                           std::int64_t{head_[i]} * head_size_ + column;
    return packed_halves(q[0] * args_.factor, q[1] * args_.factor);
  }
  __device__ void take_queries() {
#pragma unroll
    for (int step = 0; step < steps; ++step) {
      const int column = step * 16 + lane_ % 4 * 2;
      const uint4 fragment{query_pair(0, column), query_pair(1, column), query_pair(0, column + 8),
                           query_pair(1, column + 8)};
      if constexpr (shape::queries_in_registers) {
        queries_[step] = fragment;
      } else {
        fragments_[(warp_ * steps + step) * 32 + lane_] = fragment;
      }
    }
  }
  __device__ uint4 queries(int step) const {
    if constexpr (shape::queries_in_registers) return queries_[step];
    return fragments_[(warp_ * steps + step) * 32 + lane_];
  }

  __device__ void begin_split() {
#pragma unroll
    for (auto& out : out_) {
      for (float& value : out) value = 0.0F;
    }
    for (running_softmax& row : part_) row = {};
  }

  __device__ void attend_tile(int tile) {
    float scores[8][4] = {};
    await_copies();
#pragma unroll
    for (int step = 0; step < steps; ++step) {
      const uint4 q = queries(step);
      const std::uint32_t a[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        const int position = pair * 16 + lane_ / 16 * 8 + lane_ % 8;
        std::uint32_t b[4];
        load_matrices(b, keys_ + position * shape::row_halves + step * 16 + lane_ / 8 % 2 * 8);
        multiply(scores[2 * pair], a, b[0], b[1]);
        multiply(scores[2 * pair + 1], a, b[2], b[3]);
      }
    }
    __syncthreads();
    if (tile + 1 < end_tile_) copy_tile(keys_, tile + 1, 0);
    close_copies();
    bend(scores);
    hide(scores, tile);
    weigh(scores);
    await_copies();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const std::uint32_t a[4] = {packed_halves(scores[2 * step][0], scores[2 * step][1]),
                                  packed_halves(scores[2 * step][2], scores[2 * step][3]),
                                  packed_halves(scores[2 * step + 1][0], scores[2 * step + 1][1]),
                                  packed_halves(scores[2 * step + 1][2], scores[2 * step + 1][3])};
      const int position = step * 16 + lane_ / 8 % 2 * 8 + lane_ % 8;
#pragma unroll
      for (int pair = 0; pair < Columns / 16; ++pair) {
        std::uint32_t b[4];
        load_matrices_turned(b,
                             values_ + position * shape::row_halves + pair * 16 + lane_ / 16 * 8);
        multiply(out_[2 * pair], a, b[0], b[1]);
        multiply(out_[2 * pair + 1], a, b[2], b[3]);
      }
    }
    __syncthreads();
    if (tile + 1 < end_tile_) copy_tile(values_, tile + 1, kv_block_positions * head_size_);
    close_copies();
  }

  __device__ void bend(float (&scores)[8][4]) const {
    if (args_.softcap == 0.0F) return;
    // tanh(x) = 1 - 2 / (1 + 2^(2 x log2 e)), to 1e-7 of the cap.
    const float exponent = 2.0F * log2_e * args_.softcap_inverse;
    const float cap = args_.softcap * log2_e;
#pragma unroll
    for (auto& tile : scores) {
#pragma unroll
      for (float& score : tile) {
        const float power = power_of_two(__fmul_rn(score, exponent));
        score = __fmul_rn(cap, __fsub_rn(1.0F, __fdividef(2.0F, __fadd_rn(1.0F, power))));
      }
    }
  }

  // Only tiles at either end of what the warp's rows see need a mask.
  __device__ void hide(float (&scores)[8][4], int tile) const {
    const int first = tile * tile_positions;
    const bool whole = first >= max(visible_[0].begin, visible_[1].begin) &&
                       first + tile_positions <= min(visible_[0].end, visible_[1].end);
    if (__all_sync(whole_warp, whole)) return;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int position = first + i * 8 + lane_ % 4 * 2 + j % 2;
        const visible_range seen = visible_[j / 2];
        if (position < seen.begin || position >= seen.end) scores[i][j] = -INFINITY;
      }
    }
  }

  // Scores become weights; what was summed before is brought to the new maximum.
  __device__ void weigh(float (&scores)[8][4]) {
    float kept[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float most = part_[i].maximum;
#pragma unroll
      for (const auto& tile : scores) most = fmaxf(most, fmaxf(tile[2 * i], tile[2 * i + 1]));
      most = fmaxf(most, __shfl_xor_sync(whole_warp, most, 1));
      most = fmaxf(most, __shfl_xor_sync(whole_warp, most, 2));
      const float reference = most == -INFINITY ? 0.0F : most;
      kept[i] = power_of_two(part_[i].maximum - reference);
      part_[i].maximum = most;
      float sum = 0.0F;
#pragma unroll
      for (auto& tile : scores) {
#pragma unroll
        for (int j = 2 * i; j < 2 * i + 2; ++j) {
          tile[j] = power_of_two(__fadd_rn(__fsub_rn(tile[j], reference), weight_exponent));
          sum = __fadd_rn(sum, tile[j]);
        }
      }
      part_[i].sum = __fmaf_rn(part_[i].sum, kept[i], sum);
    }
    if (__all_sync(whole_warp, kept[0] == 1.0F && kept[1] == 1.0F)) return;
#pragma unroll
    for (auto& out : out_) {
      out[0] = __fmul_rn(out[0], kept[0]);
      out[1] = __fmul_rn(out[1], kept[0]);
      out[2] = __fmul_rn(out[2], kept[1]);
      out[3] = __fmul_rn(out[3], kept[1]);
    }
  }

  __device__ void finish_split() {
#pragma unroll
    for (running_softmax& row : part_) {
      row.sum = __fadd_rn(row.sum, __shfl_xor_sync(whole_warp, row.sum, 1));
      row.sum = __fadd_rn(row.sum, __shfl_xor_sync(whole_warp, row.sum, 2));
    }
  }

  // Keeps the compiler from computing addresses before the loop over tiles, which wants the
  // registers.
  __device__ static float* not_before(float* to) {
    asm volatile("" : "+l"(to));
    return to;
  }

  __device__ static void put_pair(float* to, float a, float b, bool together) {
    if (together) {
      *reinterpret_cast<float2*>(to) = float2{a, b};
    } else {
      to[0] = a;
      to[1] = b;
    }
  }

  __device__ void leave_part() const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (row_[i] < 0) continue;
      const std::int64_t part = part_index(args_, work_.slot, row_[i], head_[i]);
      float* const to = not_before(args_.parts + part * head_size_ + lane_ % 4 * 2);
#pragma unroll
      for (int j = 0; j < Columns / 8; ++j) {
        if (j * 8 < head_size_) put_pair(to + j * 8, out_[j][2 * i], out_[j][2 * i + 1], true);
      }
      if (lane_ % 4 == 0) args_.part_sums[part] = float2{part_[i].maximum, part_[i].sum};
    }
  }

  // What was folded so far stands in out, not yet divided: rarely touched, and large.
  __device__ void fold_into_out(bool first, bool last) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const fold_factors factors = fold(all_[i], part_[i].maximum, part_[i].sum);
      if (row_[i] < 0) continue;
      const float inverse = last ? inverse_of(all_[i].sum) : 1.0F;
      float* const to = not_before(args_.out + (work_.span.first_row + row_[i]) * args_.out_stride +
                                   std::int64_t{head_[i]} * head_size_ + lane_ % 4 * 2);
#pragma unroll
      for (int j = 0; j < Columns / 8; ++j) {
        if (j * 8 >= head_size_) continue;
        if (j % 4 == 0) asm volatile("" ::: "memory");  // a few loads at once
        const float a = folded(first ? 0.0F : to[j * 8], out_[j][2 * i], factors);
        const float b = folded(first ? 0.0F : to[j * 8 + 1], out_[j][2 * i + 1], factors);
        put_pair(to + j * 8, __fmul_rn(a, inverse), __fmul_rn(b, inverse), args_.out_pairs);
      }
    }
  }

  const attention_args& args_;
  const block_work work_;
  half* const keys_;
  half* const values_;
  uint4* const fragments_;
  const int lane_;
  const int warp_;
  const int head_size_;
  int first_block_;  // that are read
  int end_block_;
  int first_tile_;
  int end_tile_;
  // Of this lane's two queries: 0 is lane / 4 of the warp's sixteen, 1 is eight further.
  int row_[2];
  int head_[2];
  visible_range visible_[2];
  uint4 queries_[shape::queries_in_registers ? steps : 1];
  float out_[Columns / 8][4];
  running_softmax part_[2];  // of this split
  running_softmax all_[2];
};

// Spans with few rows: a warp a block; z goes through the queries by sixteens. With parts x is a
// slot, without a span.
template <int Columns>
__global__ void __launch_bounds__(32) few_rows(const __grid_constant__ attention_args args) {
  extern __shared__ uint4 shared[];
  const bool split = args.parts != nullptr;
  const int x = static_cast<int>(blockIdx.x);
  const split_place place = split ? place_of_slot(args.spans, x) : split_place{x, 0};
  const device_span span = args.spans.spans[place.span];
  const int queries = span.row_count * args.group;
  const int first = static_cast<int>(blockIdx.z) * 16;
  if (!has_few(span.row_count, args.group) || first >= queries) return;
  const int positions = span.first_position + span.row_count;
  if (place.split * split_positions >= positions) return;
  block_work work{span,
                  static_cast<int>(blockIdx.y),
                  first,
                  min(first + 16, queries),
                  place.split,
                  place.split + 1,
                  x};
  if (!split) {
    work.end_split = (positions - 1) / split_positions + 1;
    work.slot = -1;
  }
  attending_block<Columns, 1>(args, work, reinterpret_cast<half*>(shared)).run();
}

// The rows of a block: as many whole rows as 64 queries hold; more blocks of queries where a row's
// group is larger. Rows of spans with few are left out.
template <int Columns>
__global__ void __launch_bounds__(32 * many_warps)
    many_rows(const __grid_constant__ attention_args args) {
  extern __shared__ uint4 shared[];
  constexpr int block_queries = 16 * many_warps;
  const int rows_of_block = max(1, block_queries / args.group);
  // The last rows of a span see most: they begin first.
  const int block = static_cast<int>(gridDim.x - 1 - blockIdx.x);
  int row = block * rows_of_block;
  const int end = min(row + rows_of_block, static_cast<int>(args.spans.rows));
  while (row < end) {
    const device_span span = args.spans.spans[args.spans.span_of_row[row]];
    const int next = min(end, span.first_row + span.row_count);
    if (!has_few(span.row_count, args.group)) {
      const int last = (next - span.first_row) * args.group;
      for (int first = (row - span.first_row) * args.group; first < last; first += block_queries) {
        const block_work work{
            span,  static_cast<int>(blockIdx.y),
            first, min(first + block_queries, last),
            0,     (span.first_position + span.row_count - 1) / split_positions + 1,
            -1};
        attending_block<Columns, many_warps>(args, work, reinterpret_cast<half*>(shared)).run();
      }
    }
    row = next;
  }
}

template <int Columns>
void launch(const attention_args& args, const attention_plan& plan, cudaStream_t stream) {
  const auto keys = static_cast<unsigned>(args.key_heads);
  if (plan.few_rows > 0) {
    constexpr int bytes = room<Columns, 1>::bytes;
    check(
        cudaFuncSetAttribute(few_rows<Columns>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "shared memory of attention");
    const std::int64_t blocks = args.parts != nullptr ? plan.slots : args.spans.span_count;
    const int queries = plan.few_rows * args.group;
    const dim3 grid{static_cast<unsigned>(blocks), keys,
                    static_cast<unsigned>((queries + 15) / 16)};
    few_rows<Columns><<<grid, 32, bytes, stream>>>(args);
    launched("attention of few rows", args.spans.rows, args.cache.head_size);
  }
  if (plan.has_many) {
    constexpr int bytes = room<Columns, many_warps>::bytes;
    check(cudaFuncSetAttribute(many_rows<Columns>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               bytes),
          "shared memory of attention");
    const std::int64_t rows_of_block = std::max(1, 16 * many_warps / args.group);
    const std::int64_t blocks = (args.spans.rows + rows_of_block - 1) / rows_of_block;
    many_rows<Columns>
        <<<dim3{static_cast<unsigned>(blocks), keys}, 32 * many_warps, bytes, stream>>>(args);
    launched("attention of many rows", args.spans.rows, args.cache.head_size);
  }
}

}  // namespace

void attend_half(const attention_args& args, const attention_plan& plan, cudaStream_t stream) {
  const int H = args.cache.head_size;
  if (H <= 64) return launch<64>(args, plan, stream);
  if (H <= 128) return launch<128>(args, plan, stream);
  launch<256>(args, plan, stream);
}

}  // namespace tandem::kernels::cuda
