// What the attention kernels of both KV formats share. Positions are cut at absolute multiples of
// split_positions. A split's part is computed from scratch; parts are folded in order by one
// formula, by the kernel that computed them or by another: the same bits either way. So a row's
// result does not depend on how many rows were asked for.
#pragma once

#include "kernels/cuda/attention_cache.cuh"
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/device_math.cuh"

namespace tandem::kernels::cuda {

inline constexpr float log2_e = 1.44269504088896341F;
inline constexpr int split_positions = 128;
inline constexpr int split_blocks = split_positions / kv_block_positions;
inline constexpr int tile_positions = 64;
inline constexpr int split_tiles = split_positions / tile_positions;
// Spans of this many queries to a key head, or of one row, may have their splits side by side.
inline constexpr int few_queries = 16;

struct attention_args {
  const float* q;
  std::int64_t q_stride;
  float* out;
  std::int64_t out_stride;
  bool out_pairs;  // out may be written two floats at a time
  device_spans spans;
  cache_view cache;
  int query_heads;
  int key_heads;
  int group;  // query heads of a key head
  int window;
  float factor;   // on the queries
  float softcap;  // 0: none; scores are then softcap * log2 e * tanh(score / softcap)
  float softcap_inverse;
  // Where splits go side by side: their parts, by slot, row of the span, and head.
  float* parts = nullptr;       // [H], not divided by the sum
  float2* part_sums = nullptr;  // maximum (of scores times log2 e) and sum
  int few_rows = 0;             // most rows of a span with few
};

__host__ __device__ inline bool has_few(int rows, int group) {
  return rows == 1 || rows * group <= few_queries;
}

__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// To one rounding; the same instruction in every kernel.
__device__ inline float inverse_of(float sum) { return __fdividef(1.0F, sum); }

// Positions [begin, end) that the row at `position` sees.
struct visible_range {
  int begin;
  int end;
};
__device__ inline visible_range visible_from(int position, int window) {
  return {window > 0 ? max(0, position + 1 - window) : 0, position + 1};
}

// The running softmax of a row: what was seen so far times `kept`, plus a part times `added`. Where
// all of a part is hidden `kept` is 1 and `added` 0, exactly.
struct running_softmax {
  float maximum = -INFINITY;
  float sum = 0.0F;
};
struct fold_factors {
  float kept;
  float added;
};
__device__ inline fold_factors fold(running_softmax& all, float maximum, float sum) {
  const float most = fmaxf(all.maximum, maximum);
  const float reference = most == -INFINITY ? 0.0F : most;
  const fold_factors factors{power_of_two(all.maximum - reference),
                             power_of_two(maximum - reference)};
  all.maximum = most;
  all.sum = __fmaf_rn(all.sum, factors.kept, __fmul_rn(sum, factors.added));
  return factors;
}
__device__ inline float folded(float kept, float added, const fold_factors& factors) {
  return __fmaf_rn(kept, factors.kept, __fmul_rn(added, factors.added));
}

// Every split of every span has a slot: a span's slots begin at first_block / split_blocks plus its
// index, which leaves room enough for each (a floor loses at most one).
__host__ __device__ inline int first_slot(const device_span& span, int index) {
  return span.first_block / split_blocks + index;
}
struct split_place {
  int span;
  int split;
};
// By a whole warp.
__device__ inline split_place place_of_slot(const device_spans& spans, int slot) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int count = static_cast<int>(spans.span_count);
  int before = 0;
  for (int first = 0; first < count; first += 32) {
    const int i = first + lane;
    const bool reached = i < count && first_slot(spans.spans[i], i) <= slot;
    before += __popc(__ballot_sync(whole_warp, reached));
  }
  const int span = before - 1;
  return {span, slot - first_slot(spans.spans[span], span)};
}

// Where the part of a slot, row of its span and query head lies, in parts of H.
__device__ inline std::int64_t part_index(const attention_args& args, int slot, int row, int head) {
  return (std::int64_t{slot} * args.few_rows + row) * args.query_heads + head;
}

// What a step's spans ask for, known on the host.
struct attention_plan {
  std::int64_t slots = 0;
  int few_rows = 0;       // most rows of a span with few; 0: no such span
  int few_positions = 0;  // most positions of one
  bool has_many = false;
};

// Launch the kernels of one format; with args.parts the spans with few rows leave parts.
void attend_half(const attention_args& args, const attention_plan& plan, cudaStream_t stream);
void attend_float(const attention_args& args, const attention_plan& plan, cudaStream_t stream);

}  // namespace tandem::kernels::cuda
