// The layers backward. dx_TD holds the gradient of the stream between the layers: a branch reads it
// as its output's gradient and adds its input's to it.
#include "runtime/train/train_rows.hpp"

namespace tandem::train {

using kernels::rows_in;
using kernels::rows_out;

kernels::packed_matrix train_pass::as_linear(const product& p, const kernels::packed_matrix& w) {
  return p.gated ? device_.gated_as_linear(w) : w;
}

void train_pass::multiply_back(rows_in dy, const kernels::packed_matrix& w,
                               const std::vector<row_section>& sections, bool add, rows_out dx) {
  if (ranks_.alone()) return device_.linear_backward_input(dy, w, add, dx);
  const auto whole = ranks_.whole_of(w, sections, dy.columns, weights_room());
  const auto share = ranks_.share_of(dy.rows);
  const auto rows_within = [&](auto rows) {
    rows.data += share.first * rows.stride;
    rows.rows = share.count;
    return rows;
  };
  if (share.count > 0) device_.linear_backward_input(rows_within(dy), whole, add, rows_within(dx));
}

void train_pass::weights_backward(rows_in dy, const product& p) {
  if (!full() || dy.columns == 0) return;
  if (ranks_.alone()) device_.hold_rows(dy);
  device_.linear_backward_weights(dy, p.x, segments_, as_linear(p, what_.gradient(*p.w)));
  if (p.bias != nullptr) device_.bias_backward(dy, segments_, what_.gradient(p.bias));
}

void train_pass::input_backward(rows_in dy, const product& p, rows_out dx) {
  const bool adapted = p.adapter->a_RX.data != nullptr;
  if (adapted && ranks_.alone()) device_.hold_rows(dy);
  if (dx.data != nullptr) {
    multiply_back(dy, as_linear(p, *p.w), p.rows, false, dx);
    ranks_.gather_rows(dx);
  }
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
  return {rows(places_.hidden_TF, config().hidden_size),
          &what_.weights->layers[layer].down_DF,
          nullptr,
          &adapter_of(layer).down,
          false,
          ranks_.model_rows()};
}

train_pass::product train_pass::gate_up_of(std::size_t layer) const {
  return {rows(places_.h_TD, config().model_size),
          &what_.weights->layers[layer].gate_up_FD,
          nullptr,
          &adapter_of(layer).gate_up,
          true,
          ranks_.gate_up_rows()};
}

train_pass::product train_pass::qkv_of(std::size_t layer) const {
  const auto& w = what_.weights->layers[layer];
  return {rows(places_.h_TD, config().model_size),
          &w.qkv_XD,
          w.qkv_bias_X,
          &adapter_of(layer).qkv,
          false,
          ranks_.qkv_rows()};
}

train_pass::product train_pass::output_of(std::size_t layer) const {
  const auto& w = what_.weights->layers[layer];
  return {rows_of(layer).heads_TNH,  &w.output_DX, w.output_bias_D,
          &adapter_of(layer).output, false,        ranks_.model_rows()};
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
  activated(layer);
  weights_backward(columns_of(feed_forward_gradient(), ranks_.own().model), down_of(layer));
}

void train_pass::hidden_backward(std::size_t layer) {
  const auto& c = config();
  const auto dhidden_TF = rows(places_.dhidden_TF, c.hidden_size);
  input_backward(feed_forward_gradient(), down_of(layer), dhidden_TF);
  const auto& own = ranks_.own().hidden;
  if (own.count > 0)
    device_.activate_gated_backward(columns_of(dhidden_TF, own), c.activation,
                                    rows_of(layer).gate_up_TF2);
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
    input_backward(whole_gate_up(a.gate_up_TF2), gate_up_of(layer), dh_TD);
  device_.rms_norm_backward(dh_TD, a.middle_TD, w.feed_forward_norm_D, c.norm_eps, segments_, true,
                            rows(places_.dx_TD, D),
                            full() ? what_.gradient(w.feed_forward_norm_D) : nullptr);
}

rows_in train_pass::whole_gate_up(rows_out own_TG) {
  if (ranks_.alone()) return own_TG;
  const auto whole_TF2 = rows(places_.dgate_up_TF2, gated_width(config().hidden_size));
  ranks_.gather_gate_up(own_TG, whole_TF2);
  return whole_TF2;
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
  const auto dqkv_TX = rows(places_.dqkv_TX, whole_qkv_columns());

  rows_in dy = dx_TD;
  if (c.post_norms) {
    const auto branch_TD = rows(places_.branch_TD, D);
    const auto* const post_D = w.post_attention_norm_D;
    device_.rms_norm_backward(dx_TD, a.attention_out_TD, post_D, c.norm_eps, segments_, false,
                              branch_TD, full() ? what_.gradient(post_D) : nullptr);
    dy = branch_TD;
  }
  const auto output = output_of(layer);
  weights_backward(columns_of(dy, ranks_.own().model), output);
  input_backward(dy, output, dheads_TNH);
  heads_backward(a, dheads_TNH, dqkv_TX);
  device_.rope_backward(whole_qkv(a.raw_qkv_TX, c.head_norms), c.query_heads, c.key_heads,
                        c.head_size, a.rope, w.query_norm_H, w.key_norm_H, c.norm_eps, segments_,
                        dqkv_TX, full() ? what_.gradient(w.query_norm_H) : nullptr,
                        full() ? what_.gradient(w.key_norm_H) : nullptr);
}

// A key head's gradient adds over all its query heads. Where ranks share key heads, every rank goes
// through all heads: it costs them the division of this piece, and only of models with fewer key
// heads than ranks.
void train_pass::heads_backward(const layer_rows& a, rows_in dheads_TNH, rows_out dqkv_TX) {
  const auto& c = config();
  if (ranks_.own_key_heads()) {
    const auto heads = ranks_.qkv_parts().front();
    const auto own_TX = ranks_.alone() ? dqkv_TX : rows(places_.own_dqkv_TX, ranks_.qkv_columns());
    device_.packed_attention_backward(
        columns_of(dheads_TNH, heads), a.qkv_TX, columns_of<const float>(a.heads_TNH, heads),
        a.lse_TN, examples_, a.shape, static_cast<int>(ranks_.own().key_heads.count), c.head_size,
        own_TX);
    if (!ranks_.alone()) ranks_.gather_qkv(own_TX, dqkv_TX);
    return;
  }
  auto* const lse_TN = floats(places_.whole_lse_TN);
  ranks_.gather_lse(a.lse_TN, T_, lse_TN);
  auto shape = a.shape;
  shape.query_heads = c.query_heads;
  device_.packed_attention_backward(dheads_TNH, whole_qkv(a.qkv_TX, true), a.heads_TNH, lse_TN,
                                    examples_, shape, c.key_heads, c.head_size, dqkv_TX);
}

// Of all heads; asked for in vain where nobody reads it.
rows_in train_pass::whole_qkv(rows_in own_TX, bool wanted) {
  if (ranks_.alone()) return own_TX;
  const auto whole_TX = rows(places_.whole_qkv_TX, whole_qkv_columns());
  if (wanted) ranks_.gather_qkv(own_TX, whole_TX);
  return whole_TX;
}

std::int64_t train_pass::whole_qkv_columns() const {
  const auto& c = config();
  return (c.query_heads + 2 * std::int64_t{c.key_heads}) * c.head_size;
}

void train_pass::qkv_backward(std::size_t layer) {
  const auto& c = config();
  const auto D = c.model_size;
  const auto& w = what_.weights->layers[layer];
  const auto a = rows_of(layer);
  const auto h_TD = rows(places_.h_TD, D);
  const auto dqkv_TX = rows(places_.dqkv_TX, whole_qkv_columns());
  device_.rms_norm(a.x_TD, w.attention_norm_D, c.norm_eps, h_TD);
  // Nothing below the first layer learns from an adapter.
  const bool lowest = layer == 0 && !full();
  const auto dh_TD = lowest ? rows_out{} : rows(places_.dh_TD, D);
  const auto qkv = qkv_of(layer);
  auto own_TX = dqkv_TX;
  if (!ranks_.alone() && full()) {
    own_TX = rows(places_.own_dqkv_TX, ranks_.qkv_columns());
    ranks_.take_qkv(dqkv_TX, own_TX);
  }
  weights_backward(own_TX, qkv);
  input_backward(dqkv_TX, qkv, dh_TD);
  if (lowest) return;
  device_.rms_norm_backward(dh_TD, a.x_TD, w.attention_norm_D, c.norm_eps, segments_, true,
                            rows(places_.dx_TD, D),
                            full() ? what_.gradient(w.attention_norm_D) : nullptr);
}

void train_pass::embedding_backward() {
  const auto& c = config();
  if (!ranks_.alone()) return own_embedding_backward();
  if (what_.add_embedding)
    device_.embed_backward(rows(places_.dx_TD, c.model_size), ids_, c.embedding_scale,
                           what_.gradient(what_.weights->embedding_VD));
  else
    embedded_ = ids_;
}

// Each row of the table is a chain of its own.
void train_pass::own_embedding_backward() {
  const auto& c = config();
  const auto& own = ranks_.own().vocabulary;
  embedded_.clear();
  embedded_rows_.clear();
  for (std::size_t t = 0; t < ids_.size(); ++t) {
    if (ids_[t] < own.first || ids_[t] >= own.first + own.count) continue;
    embedded_.push_back(ids_[t] - static_cast<token_id>(own.first));
    embedded_rows_.push_back(static_cast<std::int32_t>(t));
  }
  if (embedded_.empty()) return;
  auto own_TD = rows(places_.dh_TD, c.model_size);
  own_TD.rows = std::ssize(embedded_);
  device_.gather_rows(rows(places_.dx_TD, c.model_size), embedded_rows_, own_TD);
  device_.embed_backward(own_TD, embedded_, c.embedding_scale,
                         what_.gradient(what_.weights->embedding_VD));
}

}  // namespace tandem::train
