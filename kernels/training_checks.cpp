// Checks of the ops of training.
#include "kernels/op_findings.hpp"

namespace tandem::kernels::checks {
namespace {

findings& packed(findings& so_far, const step_limits& limits, const rows_in& qkv,
                 std::span<const packed_span> spans, const attention_shape& shape, int key_heads,
                 int head_size, int largest_head) {
  heads(so_far, qkv.columns, shape.query_heads, key_heads, head_size)
      .equal("a softcap", shape.softcap != 0.0F, 0)
      .multiple("query heads", shape.query_heads, key_heads)
      .multiple("values of a head", head_size, 8)
      .at_most("values of a head", head_size, largest_head)
      .training(limits, qkv.rows)
      .cover("a span's first row", "rows of a span", "rows of all spans", spans, qkv.rows);
  if (limits.context_positions > 0)
    for (const packed_span& span : spans)
      so_far.at_most("rows of a span", span.row_count, limits.context_positions);
  return so_far;
}

findings& gated(findings& so_far, const rows_in& gate_up, const rows_in& y) {
  const std::int64_t padded = (y.columns + panel - 1) / panel * panel;
  return so_far.equal("rows of gate and up", gate_up.rows, y.rows)
      .equal("columns of gate and up", gate_up.columns, 2 * padded);
}

}  // namespace

refusal linear_backward_input(const step_limits& limits, rows_in dy_TY, const packed_matrix& w_YX,
                              rows_in dx_TX) {
  return findings("linear_backward_input")
      .equal("rows of dx", dx_TX.rows, dy_TY.rows)
      .equal("columns of dy", dy_TY.columns, w_YX.rows)
      .equal("columns of dx", dx_TX.columns, w_YX.columns)
      .training(limits, dy_TY.rows);
}

refusal linear_backward_weights(const step_limits& limits, rows_in dy_TY, rows_in x_TX,
                                std::span<const row_segment> slots, const packed_matrix& dw_YX) {
  findings so_far("linear_backward_weights");
  so_far.equal("rows of x", x_TX.rows, dy_TY.rows)
      .equal("columns of dy", dy_TY.columns, dw_YX.rows)
      .equal("columns of x", x_TX.columns, dw_YX.columns)
      .at_most("columns of x", x_TX.columns, limits.widest_input);
  return in_float32(so_far, "format of dw", dw_YX).slots(limits, dy_TY.rows, slots);
}

refusal bias_backward(const step_limits& limits, rows_in dy_TY,
                      std::span<const row_segment> slots) {
  return findings("bias_backward").slots(limits, dy_TY.rows, slots);
}

refusal activate_gated(rows_in gate_up_T2F, rows_in y_TF) {
  findings so_far("activate_gated");
  return gated(so_far, gate_up_T2F, y_TF);
}

refusal activate_gated_backward(rows_in dy_TF, rows_in gate_up_T2F) {
  findings so_far("activate_gated_backward");
  return gated(so_far, gate_up_T2F, dy_TF);
}

refusal rms_norm_backward(const step_limits& limits, rows_in dy_TD, rows_in x_TD,
                          std::span<const row_segment> slots, rows_in dx_TD) {
  return findings("rms_norm_backward")
      .same_shape("rows of dy", "columns of dy", dy_TD, x_TD)
      .same_shape("rows of dx", "columns of dx", dx_TD, x_TD)
      .slots(limits, x_TD.rows, slots);
}

refusal rope(rows_in qkv_TX, int query_heads, int key_heads, int head_size, const rope_step& rope,
             rows_in out_TX) {
  findings so_far("rope");
  heads(so_far, qkv_TX.columns, query_heads, key_heads, head_size)
      .same_shape("rows out", "columns out", out_TX, qkv_TX);
  return rotary(so_far, rope, head_size);
}

refusal rope_backward(const step_limits& limits, rows_in qkv_TX, int query_heads, int key_heads,
                      int head_size, const rope_step& rope, bool normed,
                      std::span<const row_segment> slots, rows_in d_TX) {
  findings so_far("rope_backward");
  heads(so_far, d_TX.columns, query_heads, key_heads, head_size);
  rotary(so_far, rope, head_size).slots(limits, d_TX.rows, slots);
  if (normed)
    so_far.same_shape("rows of rope's input", "columns of rope's input", qkv_TX, d_TX)
        .at_most("query heads", query_heads, limits.query_heads)
        .at_most("key heads", key_heads, limits.query_heads);
  return so_far;
}

refusal packed_attention(const step_limits& limits, rows_in qkv_TX,
                         std::span<const packed_span> spans, const attention_shape& shape,
                         int key_heads, int head_size, int largest_head, rows_in out_TX) {
  findings so_far("packed_attention");
  return packed(so_far, limits, qkv_TX, spans, shape, key_heads, head_size, largest_head)
      .equal("rows out", out_TX.rows, qkv_TX.rows)
      .equal("columns out", out_TX.columns, std::int64_t{shape.query_heads} * head_size);
}

refusal packed_attention_backward(const step_limits& limits, rows_in dout_TX, rows_in qkv_TX,
                                  rows_in out_TX, std::span<const packed_span> spans,
                                  const attention_shape& shape, int key_heads, int head_size,
                                  int largest_head, rows_in dqkv_TX) {
  findings so_far("packed_attention_backward");
  return packed(so_far, limits, qkv_TX, spans, shape, key_heads, head_size, largest_head)
      .at_most("query heads", shape.query_heads, limits.query_heads)
      .equal("rows of out", out_TX.rows, qkv_TX.rows)
      .equal("columns of out", out_TX.columns, std::int64_t{shape.query_heads} * head_size)
      .same_shape("rows of dout", "columns of dout", dout_TX, out_TX)
      .same_shape("rows of dqkv", "columns of dqkv", dqkv_TX, qkv_TX);
}

refusal cross_entropy_observe(rows_in logits_BC, std::int32_t first_id,
                              std::span<const cross_entropy_row> rows_B) {
  return findings("cross_entropy_observe")
      .equal("rows of softmax", std::ssize(rows_B), logits_BC.rows)
      .at_least("columns of logits", logits_BC.columns, 1)
      .at_least("first id", first_id, 0);
}

refusal cross_entropy_backward(rows_in logits_BC, std::int32_t first_id,
                               std::span<const cross_entropy_row> rows_B,
                               std::span<const float> scale_B) {
  return findings("cross_entropy_backward")
      .equal("rows of softmax", std::ssize(rows_B), logits_BC.rows)
      .equal("scales", std::ssize(scale_B), logits_BC.rows)
      .at_least("first id", first_id, 0);
}

refusal scatter_add_rows(rows_in y_BD, std::span<const std::int32_t> rows, rows_in x_TD) {
  return findings("scatter_add_rows")
      .equal("indices", std::ssize(rows), y_BD.rows)
      .equal("columns of y", y_BD.columns, x_TD.columns)
      .each_below("index", rows, x_TD.rows);
}

refusal embed_backward(rows_in dx_TD, std::span<const std::int32_t> ids_T,
                       const packed_matrix& dtable_VD) {
  findings so_far("embed_backward");
  so_far.equal("ids", std::ssize(ids_T), dx_TD.rows)
      .equal("columns of dx", dx_TD.columns, dtable_VD.columns)
      .each_below("id", ids_T, dtable_VD.rows);
  return in_float32(so_far, "format of the gradient", dtable_VD);
}

refusal moe_route_backward(rows_in logits_TE, const moe_routes& routes, rows_in dlogits_TE) {
  findings so_far("moe_route_backward");
  return routes_of(so_far, routes, logits_TE.columns)
      .same_shape("rows of dlogits", "columns of dlogits", dlogits_TE, logits_TE);
}

refusal moe_backward(const step_limits& limits, rows_in dy_TD, rows_in h_TD,
                     const moe_routes& routes, std::span<const expert_matrices> experts,
                     std::span<const row_segment> slots, std::span<const expert_matrices> dexperts,
                     rows_in dh_TD) {
  findings so_far("moe_backward");
  so_far.same_shape("rows of dy", "columns of dy", dy_TD, h_TD)
      .same_shape("rows of dh", "columns of dh", dh_TD, h_TD)
      .slots(limits, h_TD.rows, slots);
  experts_of(so_far, limits, h_TD, routes, experts);
  if (dexperts.empty()) return so_far;
  so_far.equal("gradients of experts", std::ssize(dexperts), std::ssize(experts));
  for (const auto& [gate_up, down] : dexperts) {
    in_float32(so_far, "format of gate and up's gradient", gate_up);
    in_float32(so_far, "format of down's gradient", down);
  }
  return so_far;
}

refusal add_rows(rows_in y_TX, rows_in x_TX) {
  return findings("add_rows").same_shape("rows of y", "columns of y", y_TX, x_TX);
}

refusal sums_of_squares(std::span<const std::span<const float>> arrays,
                        std::span<const double> sums) {
  return findings("sums_of_squares").equal("sums", std::ssize(sums), std::ssize(arrays));
}

refusal adamw(const adamw_step& how, std::int64_t count) {
  return findings("adamw").at_least("step", how.step, 1).at_least("numbers", count, 0);
}

}  // namespace tandem::kernels::checks
