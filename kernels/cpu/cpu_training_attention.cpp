// Attention over packed rows and its backward, cut into units that the threads take one by one. A
// unit's result does not depend on who takes it, and nothing the size of T x T is ever kept.
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/op_checks.hpp"

#include <algorithm>
#include <atomic>

namespace tandem::kernels::cpu {
namespace {

// Rows of one unit of forward work: enough that laying out keys costs little beside.
constexpr std::int64_t unit_rows = 120;

}  // namespace

void cpu_device::for_units(function_ref<void(const span_unit&, int)> f) {
  std::atomic<std::size_t> next{0};
  team_.run([&](int thread) {
    for (std::size_t i = next.fetch_add(1); i < units_.size(); i = next.fetch_add(1)) {
      f(units_[i], thread);
    }
  });
}

void cpu_device::packed_attention(rows_in qkv_TX, std::span<const packed_span> spans,
                                  const attention_shape& shape, int key_heads, int head_size,
                                  rows_out out_TX, float* lse_TN) {
  if (qkv_TX.rows == 0) return;
  require(checks::packed_attention(limits_, qkv_TX, spans, shape, key_heads, head_size,
                                   limits_.head_size, out_TX));
  // The longest first, so that the last ones to end are short.
  units_.clear();
  for (const packed_span& span : spans) {
    for (std::int64_t row = 0; row < span.row_count; row += unit_rows) {
      for (int head = 0; head < key_heads; ++head) units_.push_back({span, row, head});
    }
  }
  std::sort(units_.begin(), units_.end(), [](const span_unit& a, const span_unit& b) {
    return a.first_row != b.first_row ? a.first_row > b.first_row
                                      : a.span.row_count > b.span.row_count;
  });
  const std::int64_t H = head_size;
  const int group = shape.query_heads / key_heads;
  for_units([&](const span_unit& unit, int thread) {
    const std::int64_t first = unit.span.first_row;
    const std::int64_t query_head = unit.head * group;
    packed_attention_task task{};
    task.first_row = unit.first_row;
    task.end_row = std::min(unit.first_row + unit_rows, unit.span.row_count);
    task.heads = group;
    task.head_size = head_size;
    task.window = shape.window;
    task.scale = shape.scale;
    task.q = qkv_TX.row(first) + query_head * H;
    task.k = qkv_TX.row(first) + (shape.query_heads + unit.head) * H;
    task.v = task.k + key_heads * H;
    task.qkv_stride = qkv_TX.stride;
    task.out = out_TX.row(first) + query_head * H;
    task.out_stride = out_TX.stride;
    task.lse = lse_TN + first * shape.query_heads + query_head;
    task.lse_stride = shape.query_heads;
    task.scratch =
        floats_at(layout_.spans + static_cast<std::size_t>(thread) * layout_.span_bytes_per_thread);
    table_.training->packed_attention(task);
  });
}

void cpu_device::packed_attention_backward(rows_in dout_TX, rows_in qkv_TX, rows_in out_TX,
                                           const float* lse_TN, std::span<const packed_span> spans,
                                           const attention_shape& shape, int key_heads,
                                           int head_size, rows_out dqkv_TX) {
  if (qkv_TX.rows == 0) return;
  require(checks::packed_attention_backward(limits_, dout_TX, qkv_TX, out_TX, spans, shape,
                                            key_heads, head_size, limits_.head_size, dqkv_TX));
  const std::int64_t H = head_size;
  const std::int64_t wide = (H + 15) / 16 * 16;
  const std::int64_t N = shape.query_heads;
  const std::int64_t group = N / key_heads;
  // A head's part of dk, of all rows; the heads' parts of dv behind them.
  const std::int64_t part = qkv_TX.rows * wide;
  float* dk_parts = floats_at(layout_.head_gradients);
  float* dv_parts = dk_parts + N * part;

  units_.clear();
  for (const packed_span& span : spans) {
    if (span.row_count == 0) continue;
    for (int head = 0; head < shape.query_heads; ++head) units_.push_back({span, 0, head});
  }
  std::sort(units_.begin(), units_.end(), [](const span_unit& a, const span_unit& b) {
    return a.span.row_count > b.span.row_count;
  });
  for_units([&](const span_unit& unit, int thread) {
    const std::int64_t first = unit.span.first_row;
    const std::int64_t key_column = (N + unit.head / group) * H;
    attention_backward_task task{};
    task.rows = unit.span.row_count;
    task.head_size = head_size;
    task.window = shape.window;
    task.scale = shape.scale;
    task.q = qkv_TX.row(first) + unit.head * H;
    task.k = qkv_TX.row(first) + key_column;
    task.v = task.k + key_heads * H;
    task.qkv_stride = qkv_TX.stride;
    task.out = out_TX.row(first) + unit.head * H;
    task.out_stride = out_TX.stride;
    task.dout = dout_TX.row(first) + unit.head * H;
    task.dout_stride = dout_TX.stride;
    task.lse = lse_TN + first * N + unit.head;
    task.lse_stride = N;
    task.dq = dqkv_TX.row(first) + unit.head * H;
    task.dq_stride = dqkv_TX.stride;
    task.dk = dk_parts + unit.head * part + first * wide;
    task.dv = dv_parts + unit.head * part + first * wide;
    task.scratch =
        floats_at(layout_.spans + static_cast<std::size_t>(thread) * layout_.span_bytes_per_thread);
    table_.training->attention_backward(task);
  });
  for_rows(qkv_TX.rows, [&](std::int64_t t) {
    for (std::int64_t head = 0; head < key_heads; ++head) {
      float* dk = dqkv_TX.row(t) + (N + head) * H;
      float* dv = dk + key_heads * H;
      for (std::int64_t j = 0; j < group; ++j) {
        const std::int64_t at = (head * group + j) * part + t * wide;
        const auto put = j == 0 ? table_.training->scale : table_.training->add_scaled;
        put(dk_parts + at, 1.0F, H, dk);
        put(dv_parts + at, 1.0F, H, dv);
      }
    }
  });
}

}  // namespace tandem::kernels::cpu
