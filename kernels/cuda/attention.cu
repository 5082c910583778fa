// Attention over the KV cache: which kernels a step needs, and the folding of splits that were
// computed side by side. The kernels are in attention_half.cu and attention_float.cu.
#include "kernels/cuda/attention_splits.cuh"
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/rounded_products.cuh"
#include "kernels/op_checks.hpp"

#include <algorithm>
#include <cmath>

namespace tandem::kernels::cuda {
namespace {

// Parts of splits may take this much of the workspace; a step that would need more, or more than
// there is, has its splits one after the other.
constexpr std::size_t most_part_bytes = std::size_t{128} << 20;

std::size_t part_bytes(std::int64_t parts, int head_size) {
  return static_cast<std::size_t>(parts) *
             (static_cast<std::size_t>(head_size) * sizeof(float) + sizeof(float2)) +
         512;
}

// See first_slot.
std::int64_t slots_for(std::int64_t blocks, std::int64_t spans) {
  return blocks / split_blocks + spans;
}

attention_plan plan_of(std::span<const attention_span> spans, int group) {
  attention_plan plan;
  std::int64_t blocks = 0;
  for (const attention_span& span : spans) {
    const int positions = span.first_position + span.row_count;
    blocks += (positions + kv_block_positions - 1) / kv_block_positions;
    if (has_few(span.row_count, group)) {
      plan.few_rows = std::max(plan.few_rows, span.row_count);
      plan.few_positions = std::max(plan.few_positions, positions);
    } else {
      plan.has_many = true;
    }
  }
  plan.slots = slots_for(blocks, std::ssize(spans));
  return plan;
}

// A row's head: its splits folded in order. A thread takes a column.
__global__ void folded_splits(attention_args args) {
  wait_for_previous();
  const int row = static_cast<int>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.y);
  const int H = args.cache.head_size;
  const int index = args.spans.span_of_row[row];
  const device_span span = args.spans.spans[index];
  if (!has_few(span.row_count, args.group)) return;
  const int row_of_span = row - span.first_row;
  const visible_range visible = visible_from(span.first_position + row_of_span, args.window);
  const int slot = first_slot(span, index);
  const int end = (visible.end + split_positions - 1) / split_positions;
  const int h = static_cast<int>(threadIdx.x);
  running_softmax all;
  float value = 0.0F;
  constexpr int ahead = 8;  // loads in flight
  for (int first = visible.begin / split_positions; first < end; first += ahead) {
    float2 sums[ahead];
    float parts[ahead];
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      if (first + i >= end) continue;
      const std::int64_t part = part_index(args, slot + first + i, row_of_span, head);
      sums[i] = args.part_sums[part];
      parts[i] = h < H ? args.parts[part * H + h] : 0.0F;
    }
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      if (first + i >= end) continue;
      const fold_factors factors = fold(all, sums[i].x, sums[i].y);
      value = folded(value, parts[i], factors);
    }
  }
  if (h < H) args.out[row * args.out_stride + head * H + h] = __fmul_rn(value, inverse_of(all.sum));
}

}  // namespace

std::size_t cuda_device::kv_block_bytes(const kv_layout& layout) const {
  const std::size_t value = layout.format == kv_format::f16 ? 2 : 4;
  return static_cast<std::size_t>(layout.key_heads) * 2 * kv_block_positions *
         static_cast<std::size_t>(layout.head_size) * value;
}

cache_view view_of(const kv_cache& cache) {
  const kv_layout& layout = cache.layout;
  return {cache.base, static_cast<std::int64_t>(cache.block_stride), layout.head_size};
}

std::size_t cuda_device::attention_workspace(const step_limits& limits) {
  // A row of each span's splits side by side; less where that is much, but room for one span.
  const std::int64_t splits = limits.context_positions / split_positions + 2;
  const std::int64_t parts_of_row = splits * limits.query_heads;
  const std::size_t all = part_bytes(limits.rows * parts_of_row, limits.head_size);
  const std::size_t one =
      part_bytes(std::min<std::int64_t>(limits.rows, few_queries) * parts_of_row, limits.head_size);
  std::size_t bytes = std::max(one, std::min(all, most_part_bytes));
  if (limits.training) {
    // Of a row and head: what attention's backward wants to know beforehand, or 1 / rms.
    auto wanted =
        static_cast<std::size_t>(limits.rows * 2 * limits.query_heads) * sizeof(float) + 256;
    if (limits.rounded)
      wanted += static_cast<std::size_t>(rounded_bytes(limits.rows, limits.widest_output) +
                                         rounded_bytes(limits.rows, limits.widest_input)) +
                512;
    bytes = std::max(bytes, wanted);
  }
  return bytes;
}

void cuda_device::attention(rows_in qkv_TX, std::span<const attention_span> spans,
                            const attention_shape& shape, const kv_cache& cache, rows_out out_TX) {
  if (qkv_TX.rows == 0) return;
  const kv_layout& layout = cache.layout;
  const int H = layout.head_size;
  require(checks::attention(qkv_TX, spans, shape, cache, kv_block_bytes(cache.layout), largest_head,
                            out_TX));

  attention_args args{};
  args.q = qkv_TX.data;
  args.q_stride = qkv_TX.stride;
  args.out = out_TX.data;
  args.out_stride = out_TX.stride;
  args.out_pairs = out_TX.stride % 2 == 0 && reinterpret_cast<std::uintptr_t>(out_TX.data) % 8 == 0;
  args.spans = spans_of(spans);
  args.cache = view_of(cache);
  args.query_heads = shape.query_heads;
  args.key_heads = layout.key_heads;
  args.group = shape.query_heads / layout.key_heads;
  args.window = shape.window;
  args.softcap = shape.softcap > 0.0F ? shape.softcap : 0.0F;
  args.softcap_inverse = args.softcap > 0.0F ? 1.0F / args.softcap : 0.0F;
  args.factor = args.softcap > 0.0F ? shape.scale : shape.scale * log2_e;

  if (refilling()) return;

  attention_plan plan = plan_of(spans, args.group);
  if (program_ != nullptr) {
    // Good for every run of the program: rows of one sequence each, up to its bound of positions.
    plan.few_positions = args.spans.most_positions;
    const std::int64_t blocks_of_span =
        (args.spans.most_positions + kv_block_positions - 1) / kv_block_positions;
    plan.slots = slots_for(args.spans.span_count * blocks_of_span, args.spans.span_count);
  }
  if (plan.few_positions > split_positions) {
    const std::int64_t parts = plan.slots * plan.few_rows * shape.query_heads;
    if (scratch_used_ + part_bytes(parts, H) <= workspace_.size()) {
      args.parts = scratch<float>(parts * H);
      args.part_sums = scratch<float2>(parts);
      args.few_rows = plan.few_rows;
    }
  }
  if (layout.format == kv_format::f16) {
    attend_half(args, plan, stream_);
  } else {
    attend_float(args, plan, stream_);
  }
  launched("attention", qkv_TX.rows, out_TX.columns);
  if (args.parts != nullptr) {
    const dim3 grid{static_cast<unsigned>(qkv_TX.rows), static_cast<unsigned>(shape.query_heads)};
    launch_early(folded_splits, grid, static_cast<unsigned>((H + 31) / 32 * 32), 0, stream_, args);
    launched("attention's splits", qkv_TX.rows, out_TX.columns);
  }
  end_scratch();
}

}  // namespace tandem::kernels::cuda
