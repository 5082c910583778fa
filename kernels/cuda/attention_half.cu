// Attention over float16 keys and values: the kernels for spans with few rows and with many, and
// their launches. What a block does is in attention_block.cuh.
//
// Traffic: each block reads its span's keys and values once, 4 H bytes a position and key head. At
// decode (one warp a block) that is all there is; with 34 KiB of shared memory a block at H = 128
// six are resident and 100 KB are in flight on each multiprocessor, enough for HBM.
#include "kernels/cuda/attention_block.cuh"
#include "kernels/cuda/early_launch.cuh"

#include <algorithm>

namespace tandem::kernels::cuda {
namespace {

constexpr int many_warps = 4;

// Spans with few rows: a warp a block; z goes through the queries by sixteens. With parts x is a
// slot, without a span.
template <int Columns>
__global__ void __launch_bounds__(32) few_rows(const __grid_constant__ attention_args args) {
  extern __shared__ uint4 shared[];
  wait_for_previous();
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
    constexpr int bytes = block_room<Columns, 1>::bytes;
    check(
        cudaFuncSetAttribute(few_rows<Columns>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "shared memory of attention");
    const std::int64_t blocks = args.parts != nullptr ? plan.slots : args.spans.span_count;
    const int queries = plan.few_rows * args.group;
    const dim3 grid{static_cast<unsigned>(blocks), keys,
                    static_cast<unsigned>((queries + 15) / 16)};
    launch_early(few_rows<Columns>, grid, 32, bytes, stream, args);
    launched("attention of few rows", args.spans.rows, args.cache.head_size);
  }
  if (plan.has_many) {
    constexpr int bytes = block_room<Columns, many_warps>::bytes;
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
