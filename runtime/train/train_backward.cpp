// The layers backward. dx_TD holds the gradient of the stream between the layers: a branch reads it
// as its output's gradient and adds its input's to it.
#include "runtime/train/train_rows.hpp"

namespace tandem::train {

using kernels::rows_in;
using kernels::rows_out;

kernels::packed_matrix train_pass::as_linear(const product& p, const kernels::packed_matrix& w) {
  return p.gated ? device_.gated_as_linear(w) : w;
}

void train_pass::weights_backward(rows_in dy, const product& p) {
  if (!full()) return;
  device_.hold_rows(dy);
  device_.linear_backward_weights(dy, p.x, segments_, as_linear(p, what_.gradient(*p.w)));
  if (p.bias != nullptr) device_.bias_backward(dy, segments_, what_.gradient(p.bias));
}

void train_pass::input_backward(rows_in dy, const product& p, rows_out dx) {
  const bool adapted = p.adapter->a_RX.data != nullptr;
  if (adapted) device_.hold_rows(dy);
  if (dx.data != nullptr) device_.linear_backward_input(dy, as_linear(p, *p.w), false, dx);
  if (!adapted) return device_.hold_rows({});

  const auto& a_RX = p.adapter->a_RX;
  const auto& b_YR = p.adapter->b_YR;
  const auto u_TR = rows(places_.u_TR, a_RX.rows);
  const auto du_TR = rows(places_.du_TR, a_RX.rows);
  device_.linear(p.x, a_RX, nullptr, false, u_TR);
  device_.scale_rows(what_.adapter_scale, u_TR);
  device_.linear_backward_weights(dy, u_TR, segments_, as_linear(p, what_.gradient(b_YR)));
  device_.linear_backward_input(dy, as_linear(p, b_YR), false, du_TR);
  device_.hold_rows({});
  device_.scale_rows(what_.adapter_scale, du_TR);
  device_.linear_backward_weights(du_TR, p.x, segments_, what_.gradient(a_RX));
  if (dx.data != nullptr) device_.linear_backward_input(du_TR, a_RX, true, dx);
}

train_pass::product train_pass::down_of(std::size_t layer) const {
  return {rows(places_.hidden_TF, config().hidden_size), &what_.weights->layers[layer].down_DF,
          nullptr, &adapter_of(layer).down, false};
}

train_pass::product train_pass::gate_up_of(std::size_t layer) const {
  return {rows(places_.h_TD, config().model_size), &what_.weights->layers[layer].gate_up_FD,
          nullptr, &adapter_of(layer).gate_up, true};
}

// Of the feed-forward's output: the stream's gradient, through the norm that may follow it.
rows_in train_pass::feed_forward_gradient() const {
  const auto& c = config();
  return rows(c.post_norms ? places_.branch_TD : places_.dx_TD, c.model_size);
}

void train_pass::down_weights_backward(std::size_t layer) {
  const auto& c = config();
  const auto& w = what_.weights->layers[layer];
  const auto a = rows_of(layer);
  if (c.post_norms) {
    const auto* const post_D = w.post_feed_forward_norm_D;
    device_.rms_norm_backward(rows(places_.dx_TD, c.model_size), a.feed_forward_out_TD, post_D,
                              c.norm_eps, segments_, false, rows(places_.branch_TD, c.model_size),
                              full() ? what_.gradient(post_D) : nullptr);
  }
  device_.activate_gated(a.gate_up_TF2, c.activation, rows(places_.hidden_TF, c.hidden_size));
  weights_backward(feed_forward_gradient(), down_of(layer));
}

void train_pass::hidden_backward(std::size_t layer) {
  const auto& c = config();
  const auto dhidden_TF = rows(places_.dhidden_TF, c.hidden_size);
  input_backward(feed_forward_gradient(), down_of(layer), dhidden_TF);
  device_.activate_gated_backward(dhidden_TF, c.activation, rows_of(layer).gate_up_TF2);
}

void train_pass::gate_up_weights_backward(std::size_t layer) {
  const auto& c = config();
  const auto a = rows_of(layer);
  device_.rms_norm(a.middle_TD, what_.weights->layers[layer].feed_forward_norm_D, c.norm_eps,
                   rows(places_.h_TD, c.model_size));
  if (!c.layers[layer].moe) weights_backward(a.gate_up_TF2, gate_up_of(layer));
}

void train_pass::feed_forward_backward(std::size_t layer) {
  const auto& c = config();
  const auto D = c.model_size;
  const auto& w = what_.weights->layers[layer];
  const auto a = rows_of(layer);
  const auto dh_TD = rows(places_.dh_TD, D);
  if (c.layers[layer].moe)
    moe_backward(layer, rows(places_.h_TD, D));
  else
    input_backward(a.gate_up_TF2, gate_up_of(layer), dh_TD);
  device_.rms_norm_backward(dh_TD, a.middle_TD, w.feed_forward_norm_D, c.norm_eps, segments_, true,
                            rows(places_.dx_TD, D),
                            full() ? what_.gradient(w.feed_forward_norm_D) : nullptr);
}

// Leaves the gradient of `h` in dh_TD.
void train_pass::moe_backward(std::size_t layer, rows_in h_TD) {
  const auto& c = config();
  const auto& w = what_.weights->layers[layer];
  const auto a = rows_of(layer);
  const auto routes = routes_of(layer);
  const auto dh_TD = rows(places_.dh_TD, c.model_size);
  const auto drouter_TE = rows(places_.drouter_TE, c.experts);
  float* const dweights = floats(places_.droute_weights);
  device_.moe_backward(rows(places_.dx_TD, c.model_size), h_TD, routes, w.experts, c.activation,
                       segments_, expert_gradients_[layer], dh_TD, dweights);
  device_.moe_route_backward(a.router_TE, c.normalize_expert_weights, routes, dweights, drouter_TE);
  if (full())
    device_.linear_backward_weights(drouter_TE, h_TD, segments_, what_.gradient(w.router_ED));
  device_.linear_backward_input(drouter_TE, w.router_ED, true, dh_TD);
}

void train_pass::attention_backward(std::size_t layer) {
  const auto& c = config();
  const auto D = c.model_size;
  const auto& w = what_.weights->layers[layer];
  const auto a = rows_of(layer);
  const auto dx_TD = rows(places_.dx_TD, D);
  const auto dheads_TNH = rows(places_.dheads_TNH, a.heads_TNH.columns);
  const auto dqkv_TX = rows(places_.dqkv_TX, a.qkv_TX.columns);

  rows_in dy = dx_TD;
  if (c.post_norms) {
    const auto branch_TD = rows(places_.branch_TD, D);
    const auto* const post_D = w.post_attention_norm_D;
    device_.rms_norm_backward(dx_TD, a.attention_out_TD, post_D, c.norm_eps, segments_, false,
                              branch_TD, full() ? what_.gradient(post_D) : nullptr);
    dy = branch_TD;
  }
  const product output{a.heads_TNH, &w.output_DX, w.output_bias_D, &adapter_of(layer).output,
                       false};
  weights_backward(dy, output);
  input_backward(dy, output, dheads_TNH);
  device_.packed_attention_backward(dheads_TNH, a.qkv_TX, a.heads_TNH, a.lse_TN, examples_, a.shape,
                                    c.key_heads, c.head_size, dqkv_TX);
  device_.rope_backward(a.raw_qkv_TX, c.query_heads, c.key_heads, c.head_size, a.rope,
                        w.query_norm_H, w.key_norm_H, c.norm_eps, segments_, dqkv_TX,
                        full() ? what_.gradient(w.query_norm_H) : nullptr,
                        full() ? what_.gradient(w.key_norm_H) : nullptr);
}

void train_pass::qkv_backward(std::size_t layer) {
  const auto& c = config();
  const auto D = c.model_size;
  const auto& w = what_.weights->layers[layer];
  const auto a = rows_of(layer);
  const auto h_TD = rows(places_.h_TD, D);
  const auto dqkv_TX = rows(places_.dqkv_TX, a.qkv_TX.columns);
  device_.rms_norm(a.x_TD, w.attention_norm_D, c.norm_eps, h_TD);
  // Nothing below the first layer learns from an adapter.
  const bool lowest = layer == 0 && !full();
  const auto dh_TD = lowest ? rows_out{} : rows(places_.dh_TD, D);
  const product qkv{h_TD, &w.qkv_XD, w.qkv_bias_X, &adapter_of(layer).qkv, false};
  weights_backward(dqkv_TX, qkv);
  input_backward(dqkv_TX, qkv, dh_TD);
  if (lowest) return;
  device_.rms_norm_backward(dh_TD, a.x_TD, w.attention_norm_D, c.norm_eps, segments_, true,
                            rows(places_.dx_TD, D),
                            full() ? what_.gradient(w.attention_norm_D) : nullptr);
}

void train_pass::embedding_backward() {
  const auto& c = config();
  if (what_.add_embedding)
    device_.embed_backward(rows(places_.dx_TD, c.model_size), ids_, c.embedding_scale,
                           what_.gradient(what_.weights->embedding_VD));
  else
    embedded_ = ids_;
}

}  // namespace tandem::train
