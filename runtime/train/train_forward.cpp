// The layers forward, keeping what backward needs. The same products and the same order of
// additions as serving's (runtime/model/forward.cpp); attention reads its keys and values from the
// rows themselves instead of a cache.
#include "runtime/train/train_rows.hpp"

namespace tandem::train {

using kernels::rows_out;

void train_pass::embed() {
  const auto& c = config();
  device_.embed(what_.weights->embedding_VD, ids_, c.embedding_scale,
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
  const auto h_TD = rows(places_.h_TD, c.model_size);

  device_.rms_norm(a.x_TD, w.attention_norm_D, c.norm_eps, h_TD);
  device_.linear(h_TD, w.qkv_XD, w.qkv_bias_X, false, a.raw_qkv_TX);
  adapt(h_TD, adapter.qkv, false, a.raw_qkv_TX);
  device_.rope(a.raw_qkv_TX, c.query_heads, c.key_heads, c.head_size, a.rope, w.query_norm_H,
               w.key_norm_H, c.norm_eps, a.qkv_TX);
  device_.packed_attention(a.qkv_TX, examples_, a.shape, c.key_heads, c.head_size, a.heads_TNH,
                           a.lse_TN);
  copy(a.x_TD, a.middle_TD);
  const rows_out out = c.post_norms ? a.attention_out_TD : a.middle_TD;
  device_.linear(a.heads_TNH, w.output_DX, w.output_bias_D, !c.post_norms, out);
  adapt(a.heads_TNH, adapter.output, false, out);
  if (c.post_norms) device_.add_rms_norm(out, w.post_attention_norm_D, c.norm_eps, a.middle_TD);
}

void train_pass::gate_up(std::size_t layer) {
  const auto& c = config();
  const auto& w = what_.weights->layers[layer];
  const auto a = rows_of(layer);
  const auto h_TD = rows(places_.h_TD, c.model_size);

  device_.rms_norm(a.middle_TD, w.feed_forward_norm_D, c.norm_eps, h_TD);
  if (c.layers[layer].moe) return;
  device_.linear(h_TD, device_.gated_as_linear(w.gate_up_FD), nullptr, false, a.gate_up_TF2);
  adapt(h_TD, adapter_of(layer).gate_up, true, a.gate_up_TF2);
}

void train_pass::feed_forward(std::size_t layer, bool again) {
  const auto& c = config();
  const auto& w = what_.weights->layers[layer];
  const auto a = rows_of(layer);
  if (c.layers[layer].moe) return moe_forward(layer, again);

  const auto hidden_TF = rows(places_.hidden_TF, c.hidden_size);
  device_.activate_gated(a.gate_up_TF2, c.activation, hidden_TF);
  if (!again) copy(a.middle_TD, a.next_x_TD);
  const rows_out out = c.post_norms ? a.feed_forward_out_TD : a.next_x_TD;
  device_.linear(hidden_TF, w.down_DF, nullptr, !c.post_norms, out);
  adapt(hidden_TF, adapter_of(layer).down, false, out);
  if (c.post_norms && !again)
    device_.add_rms_norm(out, w.post_feed_forward_norm_D, c.norm_eps, a.next_x_TD);
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
