#include "runtime/train/train_pass.hpp"

#include "runtime/train/train_rows.hpp"

#include <algorithm>
#include <utility>

namespace tandem::train {

using kernels::rows_in;
using kernels::rows_out;
using model::output_range;

train_pass::train_pass(kernels::backend& device, trained_model what, const pass_limits& limits,
                       std::span<std::byte> activations, kernels::collective* ranks)
    : device_(device),
      what_(std::move(what)),
      ranks_(device, what_.weights->config, ranks),
      places_(what_.weights->config, limits, what_.weights->place),
      memory_(activations),
      recompute_(limits.recompute),
      rows_limit_(limits.rows),
      head_columns_(limits.head_columns) {
  ensure(memory_.size() >= places_.total, "room for a pass's activations");
  long_rope_ = std::any_of(config().ropes.begin(), config().ropes.end(), [&](const auto& rope) {
    return !rope.long_inverse_frequency.empty() && limits.sequence_length > rope.original_context;
  });
  if (what_.table_VD.data == nullptr) what_.table_VD = what_.weights->embedding_VD;
  write_gradients_to(what_.gradient);
  const auto T = static_cast<std::size_t>(limits.rows);
  for (auto* const list : {&ids_, &embedded_, &embedded_rows_, &positions_, &counted_})
    list->reserve(T);
  entropies_.reserve(T);
  scales_.reserve(T);
}

void train_pass::write_gradients_to(parameter_twin gradient) {
  what_.gradient = gradient;
  expert_gradients_.resize(what_.weights->layers.size());
  if (!full()) return;
  for (std::size_t l = 0; l < expert_gradients_.size(); ++l) {
    expert_gradients_[l].clear();
    for (const auto& expert : what_.weights->layers[l].experts)
      expert_gradients_[l].push_back(
          {what_.gradient(expert.gate_up_FD), what_.gradient(expert.down_DF)});
  }
}

void train_pass::begin(std::vector<slot_rows> slots, double scale, bool backward,
                       std::vector<piece>& pieces) {
  device_.hold_rows({});  // of a program that was given up
  lay_out(slots);
  embedded_.clear();
  if (T_ == 0 || B_ == 0) return;  // nothing is counted: no loss, no gradient
  scales_.assign(static_cast<std::size_t>(B_), static_cast<float>(scale));

  const auto layers = config().layers.size();
  pieces.emplace_back([this] { embed(); });
  for (std::size_t l = 0; l < layers; ++l) {
    pieces.emplace_back([this, l] { attention(l); });
    pieces.emplace_back([this, l] { gate_up(l); });
    pieces.emplace_back([this, l] { feed_forward(l, false); });
  }
  plan_head(backward, pieces);
  if (!backward) return;
  for (std::size_t l = layers; l-- > 0;) {
    if (recompute_) {
      pieces.emplace_back([this, l] { attention(l); });
      pieces.emplace_back([this, l] { gate_up(l); });
      if (config().layers[l].moe || config().post_norms)
        pieces.emplace_back([this, l] { feed_forward(l, true); });
    }
    if (!config().layers[l].moe) {
      pieces.emplace_back([this, l] { down_weights_backward(l); });
      pieces.emplace_back([this, l] { hidden_backward(l); });
    }
    pieces.emplace_back([this, l] { gate_up_weights_backward(l); });
    pieces.emplace_back([this, l] { feed_forward_backward(l); });
    pieces.emplace_back([this, l] { attention_backward(l); });
    pieces.emplace_back([this, l] { qkv_backward(l); });
  }
  if (full()) pieces.emplace_back([this] { embedding_backward(); });
}

void train_pass::lay_out(std::span<const slot_rows> slots) {
  ids_.clear();
  positions_.clear();
  examples_.clear();
  segments_.clear();
  counted_.clear();
  counted_segments_.clear();
  entropies_.clear();
  losses_.assign(slots.size(), {});
  for (const auto& slot : slots) {
    const auto first = std::ssize(ids_);
    const auto first_counted = std::ssize(counted_);
    for (const auto rows : slot.example_rows) {
      examples_.push_back({std::ssize(positions_), rows});
      for (std::int32_t p = 0; p < rows; ++p) positions_.push_back(p);
    }
    ids_.insert(ids_.end(), slot.ids.begin(), slot.ids.end());
    for (std::size_t t = 0; t < slot.targets.size(); ++t) {
      if (slot.targets[t] < 0) continue;
      counted_.push_back(static_cast<std::int32_t>(first) + static_cast<std::int32_t>(t));
      entropies_.push_back({.target = slot.targets[t]});
    }
    segments_.push_back({first, std::ssize(ids_) - first});
    counted_segments_.push_back({first_counted, std::ssize(counted_) - first_counted});
  }
  T_ = std::ssize(ids_);
  B_ = std::ssize(counted_);
  ensure(T_ <= rows_limit_ && std::ssize(positions_) == T_, "rows within the limits, all placed");
}

float* train_pass::floats(std::size_t place) const {
  return reinterpret_cast<float*>(memory_.data() + place);
}

train_pass::layer_rows train_pass::rows_of(std::size_t layer) const {
  const auto& c = config();
  const auto& p = places_.layers[layer];
  const std::int64_t H = c.head_size;
  const std::int64_t NH = c.query_heads * H;
  const std::int64_t X = ranks_.qkv_columns();
  const auto& own = ranks_.own();
  const auto D = c.model_size;
  const auto& what = c.layers[layer];
  const auto rope = static_cast<std::size_t>(what.rope);
  const auto next =
      layer + 1 < places_.layers.size() ? places_.layers[layer + 1].x_TD : places_.last_x_TD;
  return {.x_TD = rows(p.x_TD, D),
          .next_x_TD = rows(next, D),
          .raw_qkv_TX = rows(p.raw_qkv_TX, X),
          .qkv_TX = rows(p.qkv_TX, X),
          .heads_TNH = rows(p.heads_TNH, NH),
          .lse_TN = floats(p.lse_TN),
          .attention_out_TD = rows(p.attention_out_TD, D),
          .middle_TD = rows(p.middle_TD, D),
          .gate_up_TF2 = rows(p.gate_up_TF2, gated_width(own.hidden.count)),
          .feed_forward_out_TD = rows(p.feed_forward_out_TD, D),
          .router_TE = rows(p.router_TE, c.experts),
          .shape = {static_cast<int>(own.query_heads.count), c.attention_scale, what.window, 0.0F},
          .rope = {c.ropes[rope].rotary_size, floats(places_.cos_sin[rope])}};
}

kernels::moe_routes train_pass::routes_of(std::size_t layer) const {
  const auto& p = places_.layers[layer];
  return {config().experts_per_token, reinterpret_cast<std::int32_t*>(memory_.data() + p.route_ids),
          floats(p.route_weights)};
}

const model::layer_adapter& train_pass::adapter_of(std::size_t layer) const {
  static const model::layer_adapter none;
  return full() ? none : (*what_.adapter)[layer];
}

void copy_rows(kernels::backend& device, rows_in from, float* to) {
  ensure(from.stride == from.columns, "rows without gaps");
  const auto floats = static_cast<std::size_t>(from.rows * from.columns);
  device.copy(std::as_bytes(std::span(from.data, floats)), reinterpret_cast<std::byte*>(to));
}

void train_pass::copy(rows_in from, rows_out to) {
  ensure(to.stride == to.columns, "rows without gaps");
  copy_rows(device_, from, to.data);
}

void train_pass::adapt(rows_in x, const model::adapter_product& adapter, bool gated,
                       std::span<const output_range> outputs, rows_out y) {
  if (adapter.a_RX.data == nullptr) return;
  const auto u_TR = rows(places_.u_TR, adapter.a_RX.rows);
  device_.linear(x, adapter.a_RX, nullptr, false, u_TR);
  device_.scale_rows(what_.adapter_scale, u_TR);
  const auto b_YR = gated ? device_.gated_as_linear(adapter.b_YR) : adapter.b_YR;
  if (y.columns == b_YR.rows) return device_.linear(u_TR, b_YR, nullptr, true, y);
  std::int64_t at = 0;
  for (const auto& part : outputs) {
    if (part.count > 0)
      device_.linear(u_TR, device_.rows_of(b_YR, part.first, part.count), nullptr, true,
                     columns_of(y, {at, part.count}));
    at += part.count;
  }
}

output_range train_pass::own_gate_up() const {
  const auto& own = ranks_.own().hidden;
  return {2 * own.first, model::gate_up_columns(own.count)};
}

std::size_t room_for_weights(const kernels::backend& device, const model::weights& weights,
                             const rank_exchange& ranks, std::int64_t head_columns) {
  if (ranks.alone()) return 0;
  const auto& c = weights.config;
  const std::int64_t X = (c.query_heads + 2 * std::int64_t{c.key_heads}) * c.head_size;
  std::size_t most = 0;
  const auto consider = [&](const kernels::packed_matrix& like, std::int64_t rows) {
    most = std::max(most, device.packed_bytes(like.format, rows, like.columns));
  };
  consider(c.tied_head ? weights.embedding_VD : weights.head_VD,
           std::min(head_columns, c.vocabulary_size));
  for (const auto& layer : weights.layers) {
    consider(layer.qkv_XD, X);
    consider(layer.output_DX, c.model_size);
    consider(layer.gate_up_FD, gated_width(c.hidden_size));
    consider(layer.down_DF, c.model_size);
  }
  return most;
}

}  // namespace tandem::train
