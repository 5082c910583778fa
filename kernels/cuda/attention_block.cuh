// One block of attention over float16 keys and values by tensor cores, sums in float32. A warp
// holds 16 queries that share a key head (rows times the query heads of a group); a block of warps
// goes through tiles of 64 positions in shared memory: while it multiplies with one kind (keys,
// values) the other's next tile is on its way. Must match kernels/cpu to float16's rounding of
// queries and weights.
#pragma once

#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/attention_splits.cuh"

#include <climits>

namespace tandem::kernels::cuda {

// Weights are kept times 2^10 (their sum too), so that float16 holds small ones exactly enough.
inline constexpr float weight_exponent = 10.0F;

// Shared memory: keys, values, and at large heads the queries' fragments. A row of a tile is
// padded by 16 bytes, so that the eight rows of a matrix lie in different banks.
template <int Columns, int Warps>
struct block_room {
  static constexpr bool queries_in_registers = Columns <= 128;
  static constexpr int row_halves = Columns + 8;
  static constexpr int tile_halves = tile_positions * row_halves;
  static constexpr int query_bytes = queries_in_registers ? 0 : Warps * 32 * (Columns / 16) * 16;
  static constexpr int bytes = 2 * 2 * tile_halves + query_bytes;
};

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
    first_query_ = work.first_query + warp_ * 16 + lane_ / 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      visible_[i] = {0, INT_MAX};  // nobody's queries need no mask
      if (asked(i)) visible_[i] = visible_from(work.span.first_position + row(i), args.window);
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
  using shape = block_room<Columns, Warps>;
  static constexpr int threads = 32 * Warps;
  static constexpr int steps = Columns / 16;
  static constexpr int row_pieces = Columns / 8;  // of 16 bytes; a thread takes one of each row
  static constexpr int rows_at_once = threads / row_pieces;
  static_assert(rows_at_once > 0 && kv_block_positions % rows_at_once == 0);

  // A lane has two queries of the warp's sixteen: lane / 4, and eight further.
  __device__ bool asked(int i) const { return first_query_ + 8 * i < work_.end_query; }
  __device__ int row(int i) const { return (first_query_ + 8 * i) / args_.group; }  // of the span
  __device__ int head(int i) const {
    return work_.key_head * args_.group + (first_query_ + 8 * i) % args_.group;
  }

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
    if (!asked(i) || column >= head_size_) return 0;
    const float* const q = args_.q + (work_.span.first_row + row(i)) * args_.q_stride +
                           std::int64_t{head(i)} * head_size_ + column;
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
      if (!asked(i)) continue;
      const std::int64_t part = part_index(args_, work_.slot, row(i), head(i));
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
      if (!asked(i)) continue;
      const float inverse = last ? inverse_of(all_[i].sum) : 1.0F;
      float* const to = not_before(args_.out + (work_.span.first_row + row(i)) * args_.out_stride +
                                   std::int64_t{head(i)} * head_size_ + lane_ % 4 * 2);
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
  int first_query_;  // of this lane
  visible_range visible_[2];
  uint4 queries_[shape::queries_in_registers ? steps : 1];
  float out_[Columns / 8][4];
  running_softmax part_[2];  // of this split
  running_softmax all_[2];
};

}  // namespace tandem::kernels::cuda
