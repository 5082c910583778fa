// The layers forward, keeping what backward needs. The same products and the same order of
// additions as serving's (runtime/model/forward.cpp); attention reads its keys and values from the
// rows themselves instead of a cache.
#include "runtime/train/train_rows.hpp"

#include <array>

namespace tandem::train {

using kernels::rows_out;

void train_pass::embed() {
  const auto& c = config();
  device_.embed(what_.table_VD, ids_, c.embedding_scale,
                rows(places_.layers.front().x_TD, c.model_size));
  for (std::size_t i = 0; i < c.ropes.size(); ++i) {
    const auto& rope = c.ropes[i];
    const bool longer = long_rope_ && !rope.long_inverse_frequency.empty();
    device_.rope_angles(positions_, longer ? rope.long_inverse_frequency : rope.inverse_frequency,
                        rope.attention_factor, floats(places_.cos_sin[i]));
  }
}

void train_pass::attention(std::size_t layer) {
  const auto& c = config();
  const auto& w = what_.weights->layers[layer];
  const auto& adapter = adapter_of(layer);
  const auto a = rows_of(layer);
  const auto& own = ranks_.own();
  const auto h_TD = rows(places_.h_TD, c.model_size);

  device_.rms_norm(a.x_TD, w.attention_norm_D, c.norm_eps, h_TD);
  device_.linear(h_TD, w.qkv_XD, w.qkv_bias_X, false, a.raw_qkv_TX);
  const auto heads = ranks_.qkv_parts();
  adapt(h_TD, adapter.qkv, false, heads, a.raw_qkv_TX);
  const auto own_keys = static_cast<int>(own.key_heads.count);
  device_.rope(a.raw_qkv_TX, a.shape.query_heads, own_keys, c.head_size, a.rope, w.query_norm_H,
               w.key_norm_H, c.norm_eps, a.qkv_TX);
  device_.packed_attention(a.qkv_TX, examples_, a.shape, own_keys, c.head_size,
                           columns_of(a.heads_TNH, heads.front()), a.lse_TN);
  ranks_.gather_heads(a.heads_TNH);
  copy(a.x_TD, a.middle_TD);
  const rows_out out = c.post_norms ? a.attention_out_TD : a.middle_TD;
  product_out(a.heads_TNH, w.output_DX, w.output_bias_D, adapter.output, out);
  if (c.post_norms) device_.add_rms_norm(out, w.post_attention_norm_D, c.norm_eps, a.middle_TD);
}

void train_pass::gate_up(std::size_t layer) {
  const auto& c = config();
  const auto& w = what_.weights->layers[layer];
  const auto a = rows_of(layer);
  const auto h_TD = rows(places_.h_TD, c.model_size);

  device_.rms_norm(a.middle_TD, w.feed_forward_norm_D, c.norm_eps, h_TD);
  if (c.layers[layer].moe || a.gate_up_TF2.columns == 0) return;
  device_.linear(h_TD, device_.gated_as_linear(w.gate_up_FD), nullptr, false, a.gate_up_TF2);
  const std::array outputs{own_gate_up()};
  adapt(h_TD, adapter_of(layer).gate_up, true, outputs, a.gate_up_TF2);
}

void train_pass::feed_forward(std::size_t layer, bool again) {
  const auto& c = config();
  const auto& w = what_.weights->layers[layer];
  const auto a = rows_of(layer);
  if (c.layers[layer].moe) return moe_forward(layer, again);

  const auto hidden_TF = activated(layer);
  if (!again) copy(a.middle_TD, a.next_x_TD);
  const rows_out out = c.post_norms ? a.feed_forward_out_TD : a.next_x_TD;
  product_out(hidden_TF, w.down_DF, nullptr, adapter_of(layer).down, out);
  if (c.post_norms && !again)
    device_.add_rms_norm(out, w.post_feed_forward_norm_D, c.norm_eps, a.next_x_TD);
}

// Of gate and up, whole.
rows_out train_pass::activated(std::size_t layer) {
  const auto hidden_TF = rows(places_.hidden_TF, config().hidden_size);
  const auto& own = ranks_.own().hidden;
  if (own.count > 0)
    device_.activate_gated(rows_of(layer).gate_up_TF2, config().activation,
                           columns_of(hidden_TF, own));
  ranks_.gather_hidden(hidden_TF);
  return hidden_TF;
}

// Of a product that makes D: what is added to the stream, or goes through a norm before.
void train_pass::product_out(kernels::rows_in x_TX, const kernels::packed_matrix& w_DX,
                             const float* bias_D, const model::adapter_product& adapter,
                             rows_out out_TD) {
  const auto& own = ranks_.own().model;
  const auto own_out = columns_of(out_TD, own);
  if (own.count > 0) {
    device_.linear(x_TX, w_DX, bias_D, !config().post_norms, own_out);
    const std::array outputs{own};
    adapt(x_TX, adapter, false, outputs, own_out);
  }
  ranks_.gather_model(out_TD);
}

void train_pass::moe_forward(std::size_t layer, bool again) {
  const auto& c = config();
  const auto& w = what_.weights->layers[layer];
  const auto a = rows_of(layer);
  const auto h_TD = rows(places_.h_TD, c.model_size);
  const auto routes = routes_of(layer);
  device_.linear(h_TD, w.router_ED, nullptr, false, a.router_TE);
  device_.moe_route(a.router_TE, c.normalize_expert_weights, routes);
  if (again) return;
  copy(a.middle_TD, a.next_x_TD);
  device_.moe(h_TD, routes, w.experts, c.activation, a.next_x_TD);
}

}  // namespace tandem::train
