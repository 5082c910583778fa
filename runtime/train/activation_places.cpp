#include "runtime/train/activation_places.hpp"

#include <algorithm>

namespace tandem::train {

namespace {

// Of any product's weights: numbers, rows and columns in whole 32.
std::int64_t largest_matrix(const model::model_config& c, const pass_limits& limits) {
  const auto ranks = limits.adapter_ranks;
  const auto size = [](std::int64_t rows, std::int64_t columns) {
    return (rows + 31) / 32 * 32 * ((columns + 31) / 32 * 32);
  };
  const std::int64_t H = c.head_size;
  const std::int64_t NH = c.query_heads * H;
  const std::int64_t X = NH + 2 * std::int64_t{c.key_heads} * H;
  const auto D = c.model_size;
  const auto widest = std::max({X, gated_width(c.hidden_size), c.hidden_size, D});
  return std::max({size(X, D), size(D, NH), size(gated_width(c.hidden_size), D),
                   size(D, c.hidden_size), size(gated_width(c.expert_hidden_size), D),
                   size(D, c.expert_hidden_size), size(c.experts, D),
                   size(std::min(limits.head_columns, c.vocabulary_size), D), size(ranks, widest),
                   size(widest, ranks)});
}

}  // namespace

kernels::step_limits step_limits_of(const model::model_config& c, const pass_limits& limits) {
  const std::int64_t H = c.head_size;
  const std::int64_t NH = c.query_heads * H;
  return {.rows = limits.rows,
          .widest_input = std::max(
              {c.model_size, c.hidden_size, NH, c.expert_hidden_size, limits.adapter_ranks}),
          .experts = c.experts,
          .experts_per_row = c.experts_per_token,
          .expert_hidden = c.expert_hidden_size,
          .context_positions = limits.sequence_length,
          .query_heads = c.query_heads,
          .head_size = c.head_size,
          .training = true,
          .rounded = limits.rounded,
          .widest_output = std::max({NH + 2 * std::int64_t{c.key_heads} * H, c.model_size,
                                     gated_width(c.hidden_size), gated_width(c.expert_hidden_size),
                                     std::int64_t{c.experts}, limits.adapter_ranks,
                                     std::min(limits.head_columns, c.vocabulary_size)}),
          .largest_matrix = largest_matrix(c, limits)};
}

activation_places::activation_places(const model::model_config& c, const pass_limits& limits,
                                     model::tensor_rank place) {
  const auto split = model::tensor_split::make(c, place);
  ensure(split.has_value(), "a model that can be split");
  const auto& own = split->own();
  const auto T = limits.rows;
  const std::int64_t H = c.head_size;
  const std::int64_t NH = c.query_heads * H;
  const std::int64_t X = NH + 2 * std::int64_t{c.key_heads} * H;
  const std::int64_t own_X = (own.query_heads.count + 2 * own.key_heads.count) * H;
  const auto D = c.model_size;
  const auto F = c.hidden_size;
  const auto take = [&](std::int64_t columns) {
    const std::size_t at = total;
    total += (static_cast<std::size_t>(T * columns) * sizeof(float) + 127) / 128 * 128;
    return at;
  };

  const auto inside = [&](layer_places& p, bool dense, bool moe) {
    p.qkv_TX = take(own_X);
    p.raw_qkv_TX = c.head_norms ? take(own_X) : p.qkv_TX;
    p.heads_TNH = take(NH);
    p.lse_TN = take(own.query_heads.count);
    p.middle_TD = take(D);
    if (dense) p.gate_up_TF2 = take(gated_width(own.hidden.count));
    if (c.post_norms) {
      p.attention_out_TD = take(D);
      p.feed_forward_out_TD = take(D);
    }
    if (!moe) return;
    p.router_TE = take(c.experts);
    p.route_ids = take(c.experts_per_token);
    p.route_weights = take(c.experts_per_token);
  };
  layer_places shared;
  const auto is_moe = [](const model::layer_config& layer) { return layer.moe; };
  if (limits.recompute)
    inside(shared, !std::all_of(c.layers.begin(), c.layers.end(), is_moe),
           std::any_of(c.layers.begin(), c.layers.end(), is_moe));
  for (std::size_t l = 0; l < c.layers.size(); ++l) {
    layers.push_back(shared);
    layers.back().x_TD = take(D);
    if (!limits.recompute) inside(layers.back(), !c.layers[l].moe, c.layers[l].moe);
  }
  last_x_TD = take(D);
  for (const auto& rope : c.ropes) cos_sin.push_back(take(rope.rotary_size));
  dx_TD = take(D);
  h_TD = take(D);
  dh_TD = take(D);
  if (c.post_norms) branch_TD = take(D);
  u_TR = take(limits.adapter_ranks);
  du_TR = take(limits.adapter_ranks);

  const auto overlay = total;
  auto end = overlay;
  const auto next_use = [&] {
    end = std::max(end, total);
    total = overlay;
  };
  dheads_TNH = take(NH);
  dqkv_TX = take(X);
  if (place.ranks > 1) {
    own_dqkv_TX = take(own_X);
    whole_qkv_TX = take(X);
    whole_lse_TN = take(c.query_heads);
  }
  next_use();
  if (place.ranks > 1) dgate_up_TF2 = take(gated_width(F));
  next_use();
  hidden_TF = take(F);
  dhidden_TF = take(F);
  drouter_TE = take(c.experts);
  droute_weights = take(c.experts_per_token);
  next_use();
  last_BD = take(D);
  normed_BD = take(D);
  dnormed_BD = take(D);
  logits_BP = take(std::min(limits.head_columns, c.vocabulary_size));
  next_use();
  total = end;
}

}  // namespace tandem::train
