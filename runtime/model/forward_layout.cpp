#include "runtime/model/forward_layout.hpp"

#include <algorithm>
#include <utility>

namespace tandem::model {
namespace {

// Room for A x: rows meet an adapter in pieces that fit, so that any rank does.
constexpr std::int64_t rank_floats_a_row = 64;

}  // namespace

tensor_split split_of(const model_config& config, tensor_rank place) {
  auto split = tensor_split::make(config, place);
  ensure(split.has_value(), "a model that can be split so");
  return *std::move(split);
}

kernels::kv_layout kv_layout_of(const model_config& config, const rank_part& own,
                                kernels::kv_format format) {
  return {static_cast<int>(own.key_heads.count), config.head_size, format};
}

std::int64_t qkv_columns(const model_config& c, const rank_part& own) {
  return (own.query_heads.count + 2 * own.key_heads.count) * c.head_size;
}

// More than a product's inputs say nothing new, and small models still take rank 512 of queries,
// keys and values.
std::int64_t most_ranks(const model_config& config) {
  return std::max({config.model_size, config.hidden_size, std::int64_t{3 * 512}});
}

kernels::step_limits step_limits_of(const model_config& config, const rank_part& own,
                                    const forward_limits& limits) {
  const std::int64_t NH = std::int64_t{config.query_heads} * config.head_size;
  return {.rows = limits.rows,
          .widest_input = std::max({most_ranks(config), NH, config.expert_hidden_size}),
          .experts = config.experts,
          .experts_per_row = config.experts_per_token,
          .expert_hidden = config.expert_hidden_size,
          .context_positions = limits.context_positions,
          .query_heads = static_cast<int>(own.query_heads.count),
          .head_size = config.head_size};
}

activation_layout::activation_layout(const model_config& c, const rank_part& own,
                                     const forward_limits& limits) {
  const auto take = [this](std::int64_t rows, std::int64_t columns) {
    const std::size_t at = total;
    const auto bytes = static_cast<std::size_t>(rows * columns) * sizeof(float);
    total += (bytes + 127) / 128 * 128;
    return at;
  };
  const auto T = limits.rows;
  x_TD = take(T, c.model_size);
  h_TD = take(T, c.model_size);
  qkv_TX = take(T, qkv_columns(c, own));
  heads_TNH = take(T, std::int64_t{c.query_heads} * c.head_size);
  const std::size_t attention_end = std::exchange(total, qkv_TX);
  gate_up_TG = take(T, gate_up_columns(own.hidden.count));
  total = std::max(total, attention_end);
  rank_floats = std::max(most_ranks(c), T * rank_floats_a_row);
  ranks = take(rank_floats, 1);
  hidden_TF = take(T, c.hidden_size);
  router_TE = take(T, c.experts);
  route_ids = take(T, c.experts_per_token);
  route_weights = take(T, c.experts_per_token);
  last_BD = take(limits.logit_rows, c.model_size);
  logits_BV = take(limits.logit_rows, c.vocabulary_size);
  for (const auto& rope : c.ropes) cos_sin.push_back(take(T, rope.rotary_size));
}

}  // namespace tandem::model
