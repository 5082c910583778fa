// The inner kernels of training, a part of each variant's table: plain structs alone, for the
// reasons kernel_table.hpp gives. Products of training go through kernel_table's `product`; here is
// what lays their operands out, and everything that is not a product.
#pragma once

#include "kernels/backend.hpp"

#include <cstddef>
#include <cstdint>

namespace tandem::kernels::cpu {

inline constexpr int panel_outputs = 16;

// into[c] += over the segments' tree: the chain over a segment's rows, and within a row over its
// heads, of a * (b * factors). Row t's head n starts at t * stride + n * head_stride; `factors` has
// one number a row and head.
struct column_sum_task {
  const float* a;
  std::int64_t a_stride;
  const float* b;  // null: sums of a alone
  std::int64_t b_stride;
  const float* factors;
  std::int64_t factor_stride;
  std::int64_t heads;
  std::int64_t head_stride;
  const row_segment* segments;
  std::int64_t segment_count;
  float* into;
};

// adamw_step with what is the same for all elements worked out.
struct adamw_task {
  float gradient_scale;
  float keep;        // 1 - lr * decay
  float beta1_rest;  // 1 - beta1
  float beta2;
  float beta2_rest;    // 1 - beta2
  float inverse_root;  // 1 / sqrt(1 - beta2^step)
  float eps;
  float step_size;  // lr / (1 - beta1^step)
};

// Rows [first_row, end_row) of a span, of the query heads that share a key head.
struct packed_attention_task {
  std::int64_t first_row;
  std::int64_t end_row;
  int heads;
  int head_size;
  std::int64_t window;  // 0: all
  float scale;
  const float* q;  // of the span's first row and the first of these heads; likewise k and v
  const float* k;
  const float* v;
  std::int64_t qkv_stride;
  float* out;
  std::int64_t out_stride;
  float* lse;
  std::int64_t lse_stride;
  float* scratch;  // attention_floats(end_row, head_size)
};
constexpr std::int64_t attention_floats(std::int64_t rows, std::int64_t head_size) {
  const std::int64_t H = (head_size + 15) / 16 * 16;
  return (rows + 64) * (2 * H + 64) + 3 * 64 * H + 1024;
}

// Backward of one query head over one span. `dk` and `dv` are this query head's alone; whoever
// calls adds up the heads that share keys.
struct attention_backward_task {
  std::int64_t rows;
  int head_size;
  std::int64_t window;  // 0: all
  float scale;
  const float* q;  // of the span's first row, this head; likewise k and v
  const float* k;
  const float* v;
  std::int64_t qkv_stride;
  const float* out;
  std::int64_t out_stride;
  const float* dout;
  std::int64_t dout_stride;
  const float* lse;
  std::int64_t lse_stride;
  float* dq;
  std::int64_t dq_stride;
  float* dk;  // rows of head_size rounded up to 16
  float* dv;
  float* scratch;  // attention_backward_floats
};

// Widths and heights below are rounded up to sixteens; the constant part holds tiles.
constexpr std::int64_t attention_backward_floats(std::int64_t rows, std::int64_t head_size) {
  const std::int64_t H = (head_size + 15) / 16 * 16;
  return 8 * (rows + 64) * H + 2 * rows + 2 * 64 * 64 + 1024;
}

struct training_kernels {
  // out[t * width + c] = x[t * stride + c] for c < columns, zero behind them.
  void (*copy_columns)(const float* x, std::int64_t stride, std::int64_t rows, int columns,
                       int width, float* out);
  // Up to sixteen rows turned over: out[c * 16 + r] = x[r * stride + c].
  void (*turn_rows)(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                    float* out);
  // Sixteen columns of a panel of weights from `first`, those behind `columns` zero, turned over:
  // out[o * 16 + c] is the weight of output o and column first + c.
  void (*turn_weights)(weight_format format, const std::byte* panel, std::int64_t first,
                       std::int64_t columns, float* out);

  void (*column_sums)(const column_sum_task& task, std::int64_t begin, std::int64_t end);

  // 1 / sqrt(mean(x^2) + eps)
  float (*inverse_rms)(const float* x, float eps, std::int64_t columns);
  // dx may be dy. `inverse` is inverse_rms of x.
  void (*rms_norm_backward)(const float* dy, const float* x, const float* w, float inverse,
                            std::int64_t columns, bool add, float* dx);
  // Rotates a head by its angles, or back.
  void (*turn_head)(const float* cos_sin, int rotary_size, bool back, float* head);
  // Gate and up in alternating groups of sixteen; `columns` is F.
  void (*activate)(const float* gate_up, activation act, std::int64_t columns, float* y);
  void (*activate_backward)(const float* dy, activation act, std::int64_t columns, float* gate_up);

  void (*observe)(const float* logits, std::int64_t columns, std::int32_t first_id,
                  cross_entropy_row& row);
  void (*cross_entropy_backward)(float* logits, std::int64_t columns, std::int32_t first_id,
                                 const cross_entropy_row& row, float scale);

  void (*adamw)(const adamw_task& task, const float* gradient, std::int64_t count, float* w,
                float* m, float* v);
  double (*sum_of_squares)(const float* x, std::int64_t count);
  float (*dot)(const float* a, const float* b, std::int64_t count);
  // y = factor * x, y += factor * x
  void (*scale)(const float* x, float factor, std::int64_t count, float* y);
  void (*add_scaled)(const float* x, float factor, std::int64_t count, float* y);

  void (*packed_attention)(const packed_attention_task& task);
  void (*attention_backward)(const attention_backward_task& task);
};

}  // namespace tandem::kernels::cpu
