// One layer's activations as the pass's parts use them.
#pragma once

#include "runtime/train/train_pass.hpp"

namespace tandem::train {

struct train_pass::layer_rows {
  kernels::rows_out x_TD;
  kernels::rows_out next_x_TD;
  kernels::rows_out raw_qkv_TX;
  kernels::rows_out qkv_TX;
  kernels::rows_out heads_TNH;
  float* lse_TN = nullptr;
  kernels::rows_out attention_out_TD;
  kernels::rows_out middle_TD;
  kernels::rows_out gate_up_TF2;
  kernels::rows_out feed_forward_out_TD;
  kernels::rows_out router_TE;
  kernels::attention_shape shape;
  kernels::rope_step rope;
};

}  // namespace tandem::train
