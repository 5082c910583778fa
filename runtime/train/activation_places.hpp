// Where each activation of a training pass lies in its arena, in bytes. One place decides, for
// counting and for use. Shape legend as in kernels/backend.hpp; X = (N + 2K) * H, B counted rows,
// F2 = gate and up side by side, R the ranks of a product's adapters.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/model/adapter.hpp"
#include "runtime/model/model_config.hpp"
#include "runtime/model/tensor_split.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tandem::train {

struct pass_limits {
  std::int64_t rows = 0;             // T: of all slots of this device together
  std::int64_t sequence_length = 0;  // most rows of one example
  bool recompute = false;
  std::int64_t adapter_ranks = 0;  // largest R of any product; 0: full training
  bool rounded = false;            // see kernels::step_limits
  // Columns of the vocabulary that the head computes at a time, a multiple of 16: fewer where a
  // piece must be short, more where a device wants much at once. Part of the result's bits.
  std::int64_t head_columns = 2048;
};

// Width of gate and up side by side, as kernels::backend::gated_as_linear has it.
constexpr std::int64_t gated_width(std::int64_t hidden) { return 2 * ((hidden + 15) / 16 * 16); }

kernels::step_limits step_limits_of(const model::model_config& config, const pass_limits& limits);

struct layer_places {
  std::size_t x_TD = 0;
  // What backward needs of the layer's inside. With recompute all layers share one set.
  std::size_t raw_qkv_TX = 0;  // before head norms and rope; where there are no head norms: qkv_TX
  std::size_t qkv_TX = 0;
  std::size_t heads_TNH = 0;
  std::size_t lse_TN = 0;
  std::size_t attention_out_TD = 0;  // inputs of the post-norms, where there are any
  std::size_t middle_TD = 0;
  std::size_t gate_up_TF2 = 0;
  std::size_t feed_forward_out_TD = 0;
  std::size_t router_TE = 0;
  std::size_t route_ids = 0;
  std::size_t route_weights = 0;
};

struct activation_places {
  // Of several ranks one's: its own heads' queries, keys and values and its own gate and up; all
  // else is whole.
  activation_places(const model::model_config& config, const pass_limits& limits,
                    model::tensor_rank place = {});

  std::vector<layer_places> layers;
  std::size_t last_x_TD = 0;
  std::vector<std::size_t> cos_sin;  // of each rope
  std::size_t dx_TD = 0;
  std::size_t h_TD = 0;
  std::size_t dh_TD = 0;
  std::size_t branch_TD = 0;  // gradient behind a post-norm
  std::size_t u_TR = 0;       // A x of an adapter, and its gradient
  std::size_t du_TR = 0;
  // Three uses of one stretch, never at the same time.
  std::size_t dheads_TNH = 0;
  std::size_t dqkv_TX = 0;
  // Of ranks: the own heads' part of that, others' queries, keys and values beside the own, and
  // lse of all heads.
  std::size_t own_dqkv_TX = 0;
  std::size_t whole_qkv_TX = 0;
  std::size_t whole_lse_TN = 0;
  std::size_t hidden_TF = 0;
  std::size_t dhidden_TF = 0;
  std::size_t dgate_up_TF2 = 0;  // of ranks, whole: where those two were
  std::size_t drouter_TE = 0;
  std::size_t droute_weights = 0;
  std::size_t last_BD = 0;
  std::size_t normed_BD = 0;
  std::size_t dnormed_BD = 0;
  std::size_t logits_BP = 0;  // a piece of the vocabulary
  std::size_t total = 0;
};

}  // namespace tandem::train
