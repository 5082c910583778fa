// Attention over float32 keys and values, in float32: to be right rather than fast. A warp takes a
// query. Scores: a lane takes two positions of a tile of 64; values: a lane takes columns,
// positions in order. Splits are as in attention_half.cu.
#include "kernels/cuda/attention_splits.cuh"

namespace tandem::kernels::cuda {
namespace {

constexpr int warps = 4;

// What a lane's columns h = lane + 32 i came to.
template <int Columns>
struct query_part {
  float values[Columns];
  running_softmax softmax;
};

struct query_work {
  device_span span;
  int row;  // of the span
  int head;
  int first_split;
  int end_split;
  int slot;  // of first_split, where the part is left; -1: the splits are folded into out
};

__device__ float score_of(const float4* query, const float4* key, int quads) {
  float4 sums{0.0F, 0.0F, 0.0F, 0.0F};
#pragma unroll 4
  for (int i = 0; i < quads; ++i) {
    const float4 q = query[i];
    const float4 k = key[i];
    sums.x = __fmaf_rn(q.x, k.x, sums.x);
    sums.y = __fmaf_rn(q.y, k.y, sums.y);
    sums.z = __fmaf_rn(q.z, k.z, sums.z);
    sums.w = __fmaf_rn(q.w, k.w, sums.w);
  }
  return __fadd_rn(__fadd_rn(sums.x, sums.y), __fadd_rn(sums.z, sums.w));
}

// One tile for one query; `query` lies in shared memory, scaled.
template <int Columns>
__device__ __forceinline__ void attend_tile(const attention_args& args, const query_work& work,
                                            const visible_range& visible, int tile,
                                            const float4* query, query_part<Columns>& part) {
  const int H = args.cache.head_size;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int key_head = work.head / args.group;
  const std::int32_t* const blocks = args.spans.blocks + work.span.first_block;
  const int begin = max(visible.begin, tile * tile_positions);
  const int end = min(visible.end, (tile + 1) * tile_positions);
  float scores[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int position = tile * tile_positions + 32 * i + lane;
    scores[i] = -INFINITY;
    if (position < begin || position >= end) continue;
    const float* const key =
        args.cache.keys<const float>(blocks[position / kv_block_positions], key_head) +
        position % kv_block_positions * H;
    scores[i] = score_of(query, reinterpret_cast<const float4*>(key), H / 4);
    if (args.softcap > 0.0F)
      scores[i] = __fmul_rn(args.softcap * log2_e, tanhf(scores[i] * args.softcap_inverse));
  }
  const float most = fmaxf(part.softmax.maximum, warp_max(fmaxf(scores[0], scores[1])));
  const float reference = most == -INFINITY ? 0.0F : most;
  const float kept = exp2f(part.softmax.maximum - reference);
  part.softmax.maximum = most;
  for (float& score : scores) score = exp2f(__fsub_rn(score, reference));
  part.softmax.sum = __fmaf_rn(part.softmax.sum, kept, warp_sum(__fadd_rn(scores[0], scores[1])));
#pragma unroll
  for (float& value : part.values) value = __fmul_rn(value, kept);
#pragma unroll 4
  for (int position = begin; position < end; ++position) {
    const float weight = __shfl_sync(
        whole_warp, position % tile_positions < 32 ? scores[0] : scores[1], position % 32);
    const float* const value =
        args.cache.keys<const float>(blocks[position / kv_block_positions], key_head) +
        (kv_block_positions + position % kv_block_positions) * H;
#pragma unroll
    for (int i = 0; i < Columns; ++i) {
      const int h = lane + 32 * i;
      if (h < H) part.values[i] = __fmaf_rn(weight, value[h], part.values[i]);
    }
  }
}

template <int Columns>
__device__ __forceinline__ void attend_query(const attention_args& args, const query_work& work,
                                             float* query) {
  const int H = args.cache.head_size;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float* const q =
      args.q + (work.span.first_row + work.row) * args.q_stride + std::int64_t{work.head} * H;
  __syncwarp();
  for (int h = lane; h < H; h += 32) query[h] = q[h] * args.factor;
  __syncwarp();
  const visible_range visible = visible_from(work.span.first_position + work.row, args.window);
  running_softmax all;
  float values[Columns] = {};
  const int first_split = max(work.first_split, visible.begin / split_positions);
  const int end_split = min(work.end_split, (visible.end - 1) / split_positions + 1);
  for (int split = first_split; split < end_split; ++split) {
    query_part<Columns> part = {};
    const int first = max(split * split_tiles, visible.begin / tile_positions);
    const int end = min((split + 1) * split_tiles, (visible.end - 1) / tile_positions + 1);
    for (int tile = first; tile < end; ++tile)
      attend_tile(args, work, visible, tile, reinterpret_cast<const float4*>(query), part);
    if (work.slot >= 0) {
      const std::int64_t index = part_index(args, work.slot, work.row, work.head);
#pragma unroll
      for (int i = 0; i < Columns; ++i) {
        if (lane + 32 * i < H) args.parts[index * H + lane + 32 * i] = part.values[i];
      }
      if (lane == 0) args.part_sums[index] = float2{part.softmax.maximum, part.softmax.sum};
      return;
    }
    const fold_factors factors = fold(all, part.softmax.maximum, part.softmax.sum);
#pragma unroll
    for (int i = 0; i < Columns; ++i) values[i] = folded(values[i], part.values[i], factors);
  }
  if (work.slot >= 0) return;
  const float inverse = inverse_of(all.sum);
  float* const to =
      args.out + (work.span.first_row + work.row) * args.out_stride + std::int64_t{work.head} * H;
#pragma unroll
  for (int i = 0; i < Columns; ++i) {
    if (lane + 32 * i < H) to[lane + 32 * i] = __fmul_rn(values[i], inverse);
  }
}

// A row a block in x, heads in y.
template <int Columns>
__global__ void __launch_bounds__(32 * warps, 3)
    all_splits(const __grid_constant__ attention_args args) {
  __shared__ __align__(16) float queries[warps][largest_head];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int head = static_cast<int>(blockIdx.y) * warps + warp;
  if (head >= args.query_heads) return;
  const int row = static_cast<int>(blockIdx.x);
  const device_span span = args.spans.spans[args.spans.span_of_row[row]];
  if (args.parts != nullptr && has_few(span.row_count, args.group)) return;
  const int splits = (span.first_position + span.row_count - 1) / split_positions + 1;
  attend_query<Columns>(args, {span, row - span.first_row, head, 0, splits, -1}, queries[warp]);
}

// A slot in x, heads in y, rows of the slot's span in z.
template <int Columns>
__global__ void __launch_bounds__(32 * warps, 3)
    split_by_split(const __grid_constant__ attention_args args) {
  __shared__ __align__(16) float queries[warps][largest_head];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int head = static_cast<int>(blockIdx.y) * warps + warp;
  if (head >= args.query_heads) return;
  const int slot = static_cast<int>(blockIdx.x);
  const int row = static_cast<int>(blockIdx.z);
  const split_place place = place_of_slot(args.spans, slot);
  const device_span span = args.spans.spans[place.span];
  if (!has_few(span.row_count, args.group) || row >= span.row_count) return;
  attend_query<Columns>(args, {span, row, head, place.split, place.split + 1, slot}, queries[warp]);
}

template <int Columns>
void launch(const attention_args& args, const attention_plan& plan, cudaStream_t stream) {
  const auto heads = static_cast<unsigned>((args.query_heads + warps - 1) / warps);
  if (args.parts != nullptr) {
    const dim3 grid{static_cast<unsigned>(plan.slots), heads, static_cast<unsigned>(plan.few_rows)};
    split_by_split<Columns><<<grid, 32 * warps, 0, stream>>>(args);
    launched("attention of few rows", args.spans.rows, args.cache.head_size);
  }
  if (args.parts != nullptr && !plan.has_many) return;
  all_splits<Columns>
      <<<dim3{static_cast<unsigned>(args.spans.rows), heads}, 32 * warps, 0, stream>>>(args);
  launched("attention of many rows", args.spans.rows, args.cache.head_size);
}

}  // namespace

void attend_float(const attention_args& args, const attention_plan& plan, cudaStream_t stream) {
  const int H = args.cache.head_size;
  if (H <= 64) return launch<2>(args, plan, stream);
  if (H <= 128) return launch<4>(args, plan, stream);
  launch<8>(args, plan, stream);
}

}  // namespace tandem::kernels::cuda
