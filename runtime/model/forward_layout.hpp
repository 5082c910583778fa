// How much room a forward pass takes, worked out from config, split and limits alone.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/model/forward.hpp"
#include "runtime/model/tensor_split.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tandem::model {

// Of a model that can be split so.
tensor_split split_of(const model_config& config, tensor_rank place);

kernels::kv_layout kv_layout_of(const model_config& config, const rank_part& own,
                                kernels::kv_format format);
// Of a rank's queries, keys and values.
std::int64_t qkv_columns(const model_config& c, const rank_part& own);
// Ranks of all modules of one product together that an adapter may have.
std::int64_t most_ranks(const model_config& config);
kernels::step_limits step_limits_of(const model_config& config, const rank_part& own,
                                    const forward_limits& limits);

// Where each activation lies in the arena, in bytes. One place decides, for counting and for use.
// Queries, keys, values and heads are over when gate and up begin: those lie in the same place.
// What several ranks put together is whole, and each computes its columns where they belong.
struct activation_layout {
  std::size_t x_TD = 0;
  std::size_t h_TD = 0;
  std::size_t qkv_TX = 0;
  std::size_t heads_TNH = 0;
  std::size_t gate_up_TG = 0;
  std::size_t hidden_TF = 0;
  std::size_t ranks = 0;
  std::int64_t rank_floats = 0;
  std::size_t router_TE = 0;
  std::size_t route_ids = 0;
  std::size_t route_weights = 0;
  std::size_t last_BD = 0;
  std::size_t logits_BV = 0;
  std::vector<std::size_t> cos_sin;  // of each rope
  std::size_t total = 0;

  activation_layout(const model_config& c, const rank_part& own, const forward_limits& limits);
};

}  // namespace tandem::model
