// Norms and AdamW over the own shard, in pieces of whole or partial tensors. A tensor's number does
// not depend on how the pieces fall: they are cut at fixed places of the tensor.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/train/device_memory.hpp"
#include "runtime/train/train_pass.hpp"

#include <vector>

namespace tandem::train {

// Fills `squares` (one a tensor of the own shard, in layout order) as the pieces run.
void plan_norm(kernels::backend& device, const device_memory& mine, std::vector<double>& squares,
               std::vector<piece>& pieces);

// `how.weight_decay` goes to matrices only.
void plan_update(kernels::backend& device, device_memory& mine, const kernels::adamw_step& how,
                 std::vector<piece>& pieces);

}  // namespace tandem::train
