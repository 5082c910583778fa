// Training's row by row ops: norms, rotary embedding, activations, cross entropy, tables.
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/pack.hpp"
#include "kernels/op_checks.hpp"

#include <algorithm>
#include <cmath>

namespace tandem::kernels::cpu {

void cpu_device::activate_gated(rows_in gate_up_T2F, activation act, rows_out y_TF) {
  require(checks::activate_gated(gate_up_T2F, y_TF));
  for_rows(y_TF.rows, [&](std::int64_t t) {
    table_.training->activate(gate_up_T2F.row(t), act, y_TF.columns, y_TF.row(t));
  });
}

void cpu_device::activate_gated_backward(rows_in dy_TF, activation act, rows_out gate_up_T2F) {
  require(checks::activate_gated_backward(dy_TF, gate_up_T2F));
  for_rows(dy_TF.rows, [&](std::int64_t t) {
    table_.training->activate_backward(dy_TF.row(t), act, dy_TF.columns, gate_up_T2F.row(t));
  });
}

void cpu_device::rms_norm_backward(rows_in dy_TD, rows_in x_TD, const float* w_D, float eps,
                                   std::span<const row_segment> slots, bool add, rows_out dx_TD,
                                   float* dw_D) {
  require(checks::rms_norm_backward(limits_, dy_TD, x_TD, slots, dx_TD));
  float* inverse = floats_at(layout_.row_factors);
  // dw first: dx may take the place of dy.
  for_rows(x_TD.rows, [&](std::int64_t t) {
    inverse[t] = table_.training->inverse_rms(x_TD.row(t), eps, x_TD.columns);
  });
  if (dw_D != nullptr) {
    column_sum_task task{};
    task.a = dy_TD.data;
    task.a_stride = dy_TD.stride;
    task.b = x_TD.data;
    task.b_stride = x_TD.stride;
    task.factors = inverse;
    task.factor_stride = 1;
    task.heads = 1;
    task.into = dw_D;
    sum_columns(task, x_TD.columns, slots);
  }
  for_rows(x_TD.rows, [&](std::int64_t t) {
    table_.training->rms_norm_backward(dy_TD.row(t), x_TD.row(t), w_D, inverse[t], x_TD.columns,
                                       add, dx_TD.row(t));
  });
}

void cpu_device::rope(rows_in qkv_TX, int query_heads, int key_heads, int head_size,
                      const rope_step& rope, const float* q_norm_H, const float* k_norm_H,
                      float eps, rows_out out_TX) {
  const std::int64_t H = head_size;
  const std::int64_t turned = query_heads + key_heads;
  require(checks::rope(qkv_TX, query_heads, key_heads, head_size, rope, out_TX));
  for_rows(qkv_TX.rows, [&](std::int64_t t) {
    float* out = out_TX.row(t);
    if (out != qkv_TX.row(t)) std::copy_n(qkv_TX.row(t), qkv_TX.columns, out);
    for (std::int64_t n = 0; n < turned; ++n) {
      const float* norm = n < query_heads ? q_norm_H : k_norm_H;
      float* head = out + n * H;
      if (norm != nullptr) table_.rms_norm(head, norm, eps, H, false, head);
      table_.training->turn_head(rope.cos_sin + t * rope.rotary_size, rope.rotary_size, false,
                                 head);
    }
  });
}

void cpu_device::rope_backward(rows_in qkv_TX, int query_heads, int key_heads, int head_size,
                               const rope_step& rope, const float* q_norm_H, const float* k_norm_H,
                               float eps, std::span<const row_segment> slots, rows_out d_TX,
                               float* dq_norm_H, float* dk_norm_H) {
  const std::int64_t H = head_size;
  const std::int64_t turned = query_heads + key_heads;
  const bool normed = q_norm_H != nullptr || k_norm_H != nullptr;
  require(checks::rope_backward(limits_, qkv_TX, query_heads, key_heads, head_size, rope, normed,
                                slots, d_TX));
  float* inverse = floats_at(layout_.row_factors);
  const auto norm_of = [&](std::int64_t n) { return n < query_heads ? q_norm_H : k_norm_H; };
  for_rows(d_TX.rows, [&](std::int64_t t) {
    for (std::int64_t n = 0; n < turned; ++n) {
      table_.training->turn_head(rope.cos_sin + t * rope.rotary_size, rope.rotary_size, true,
                                 d_TX.row(t) + n * H);
      if (norm_of(n) == nullptr) continue;
      inverse[t * turned + n] = table_.training->inverse_rms(qkv_TX.row(t) + n * H, eps, H);
    }
  });
  if (!normed) return;
  const auto sum = [&](std::int64_t first_head, std::int64_t heads, float* into) {
    column_sum_task task{};
    task.a = d_TX.data + first_head * H;
    task.a_stride = d_TX.stride;
    task.b = qkv_TX.data + first_head * H;
    task.b_stride = qkv_TX.stride;
    task.factors = inverse + first_head;
    task.factor_stride = turned;
    task.heads = heads;
    task.head_stride = H;
    task.into = into;
    sum_columns(task, H, slots);
  };
  if (q_norm_H != nullptr && dq_norm_H != nullptr) sum(0, query_heads, dq_norm_H);
  if (k_norm_H != nullptr && dk_norm_H != nullptr) sum(query_heads, key_heads, dk_norm_H);
  for_rows(d_TX.rows, [&](std::int64_t t) {
    for (std::int64_t n = 0; n < turned; ++n) {
      if (norm_of(n) == nullptr) continue;
      float* d = d_TX.row(t) + n * H;
      table_.training->rms_norm_backward(d, qkv_TX.row(t) + n * H, norm_of(n),
                                         inverse[t * turned + n], H, false, d);
    }
  });
}

void cpu_device::cross_entropy_observe(rows_in logits_BC, std::int32_t first_id,
                                       std::span<cross_entropy_row> rows_B) {
  require(checks::cross_entropy_observe(logits_BC, first_id, rows_B));
  for_rows(logits_BC.rows, [&](std::int64_t b) {
    table_.training->observe(logits_BC.row(b), logits_BC.columns, first_id,
                             rows_B[static_cast<std::size_t>(b)]);
  });
}

void cpu_device::cross_entropy_backward(rows_out logits_BC, std::int32_t first_id,
                                        std::span<const cross_entropy_row> rows_B,
                                        std::span<const float> scale_B) {
  require(checks::cross_entropy_backward(logits_BC, first_id, rows_B, scale_B));
  for_rows(logits_BC.rows, [&](std::int64_t b) {
    const auto at = static_cast<std::size_t>(b);
    table_.training->cross_entropy_backward(logits_BC.row(b), logits_BC.columns, first_id,
                                            rows_B[at], scale_B[at]);
  });
}

void cpu_device::scatter_add_rows(rows_in y_BD, std::span<const std::int32_t> rows, rows_out x_TD) {
  require(checks::scatter_add_rows(y_BD, rows, x_TD));
  for_rows(y_BD.rows, [&](std::int64_t b) {
    table_.training->add_scaled(y_BD.row(b), 1.0F, y_BD.columns,
                                x_TD.row(rows[static_cast<std::size_t>(b)]));
  });
}

void cpu_device::embed_backward(rows_in dx_TD, std::span<const std::int32_t> ids_T, float scale,
                                const packed_matrix& dtable_VD) {
  require(checks::embed_backward(dx_TD, ids_T, dtable_VD));
  const panel_layout layout = panel_layout::of(dtable_VD.format, dtable_VD.rows, dtable_VD.columns);
  // By columns: a row that comes twice is added in order whoever has it.
  for_ranges(dx_TD.columns, true, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = 0; t < dx_TD.rows; ++t) {
      const std::int32_t id = ids_T[static_cast<std::size_t>(t)];
      auto* to =
          reinterpret_cast<float*>(dtable_VD.data + id / panel_outputs * layout.panel_bytes) +
          id % panel_outputs;
      const float* from = dx_TD.row(t);
      for (std::int64_t c = begin; c < end; ++c) to[c * panel_outputs] += scale * from[c];
    }
  });
}

// --- plain arrays ------------------------------------------------------------------------------

void cpu_device::scale_rows(float factor, rows_out x_TX) {
  for_rows(x_TX.rows, [&](std::int64_t t) {
    table_.training->scale(x_TX.row(t), factor, x_TX.columns, x_TX.row(t));
  });
}

void cpu_device::add_rows(rows_in y_TX, rows_out x_TX) {
  require(checks::add_rows(y_TX, x_TX));
  for_rows(x_TX.rows, [&](std::int64_t t) {
    table_.training->add_scaled(y_TX.row(t), 1.0F, x_TX.columns, x_TX.row(t));
  });
}

void cpu_device::add_arrays(const float* a, const float* b, std::int64_t count, float* into) {
  for_ranges(count, count > 4096, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) into[i] = a[i] + b[i];
  });
}

void cpu_device::fill_zero(std::span<std::byte> memory) {
  for_ranges(std::ssize(memory), memory.size() > 16384, [&](std::int64_t begin, std::int64_t end) {
    std::fill(memory.data() + begin, memory.data() + end, std::byte{0});
  });
}

void cpu_device::write(std::span<const std::byte> host, std::byte* device) { copy(host, device); }

void cpu_device::read(std::span<const std::byte> device, std::byte* host) { copy(device, host); }

void cpu_device::copy_rows(rows_in from_TX, rows_out to_TX) {
  require(checks::copy_rows(from_TX, to_TX));
  for_ranges(from_TX.rows, from_TX.rows * from_TX.columns > 16384,
             [&](std::int64_t begin, std::int64_t end) {
               for (auto r = begin; r < end; ++r)
                 std::copy_n(from_TX.row(r), from_TX.columns, to_TX.row(r));
             });
}

void cpu_device::copy(std::span<const std::byte> from, std::byte* to) {
  for_ranges(std::ssize(from), from.size() > 65536, [&](std::int64_t begin, std::int64_t end) {
    std::copy(from.data() + begin, from.data() + end, to + begin);
  });
}

double cpu_device::sum_of_squares(const float* x, std::int64_t count) {
  constexpr std::int64_t piece = 65'536;
  // So many pieces at a time as fit on the stack; added in order.
  constexpr std::int64_t together = 512;
  double sums[together];
  double sum = 0.0;
  for (std::int64_t first = 0; first < count; first += together * piece) {
    const std::int64_t pieces = std::min(together, (count - first + piece - 1) / piece);
    for_ranges(pieces, pieces > 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p) {
        const std::int64_t at = first + p * piece;
        sums[p] = table_.training->sum_of_squares(x + at, std::min(piece, count - at));
      }
    });
    for (std::int64_t p = 0; p < pieces; ++p) sum += sums[p];
  }
  return sum;
}

void cpu_device::adamw(const adamw_step& how, const float* gradient, std::int64_t count, float* w,
                       float* m, float* v) {
  require(checks::adamw(how, count));
  const auto step = static_cast<double>(how.step);
  const double correction1 = 1.0 - std::pow(double{how.beta1}, step);
  const double correction2 = 1.0 - std::pow(double{how.beta2}, step);
  adamw_task task{};
  task.gradient_scale = how.gradient_scale;
  task.keep = static_cast<float>(1.0 - double{how.learning_rate} * double{how.weight_decay});
  task.beta1_rest = static_cast<float>(1.0 - double{how.beta1});
  task.beta2 = how.beta2;
  task.beta2_rest = static_cast<float>(1.0 - double{how.beta2});
  task.inverse_root = static_cast<float>(1.0 / std::sqrt(correction2));
  task.eps = how.eps;
  task.step_size = static_cast<float>(double{how.learning_rate} / correction1);
  constexpr std::int64_t line = 16;
  const std::int64_t lines = (count + line - 1) / line;
  for_ranges(lines, count > 4096, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t from = begin * line;
    table_.training->adamw(task, gradient + from, std::min(end * line, count) - from, w + from,
                           m + from, v + from);
  });
}

}  // namespace tandem::kernels::cpu
