// Norms and AdamW over the own shard, in pieces of whole or partial tensors. A tensor's number does
// not depend on how the pieces fall: they are cut at fixed places of the tensor.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/train/device_memory.hpp"
#include "runtime/train/rank_exchange.hpp"
#include "runtime/train/rank_layout.hpp"
#include "runtime/train/train_pass.hpp"

#include <cstddef>
#include <span>
#include <vector>

namespace tandem::train {

// Fills `squares` (one a tensor of the own shard, in layout order) as the pieces run.
void plan_norm(kernels::backend& device, const device_memory& mine, std::vector<double>& squares,
               std::vector<piece>& pieces);

// `how.weight_decay` goes to matrices only.
void plan_update(kernels::backend& device, device_memory& mine, const kernels::adamw_step& how,
                 std::vector<piece>& pieces);

// Of ranks that hold a model together: the same number of pieces on each, and the numbers of one
// device. Squares add up over whole tensors, in the order of one's: their parts are brought
// together in `room`, which has floats for room_for_norms.
std::size_t room_for_norms(const kernels::backend& device, const rank_layout& layout);
void plan_norm(kernels::backend& device, const device_memory& mine, const rank_layout& layout,
               const rank_exchange& ranks, std::span<float> room, std::vector<double>& squares,
               std::vector<piece>& pieces);
void plan_update(kernels::backend& device, device_memory& mine, const rank_layout& layout,
                 const kernels::adamw_step& how, std::vector<piece>& pieces);
// `more`, whose number may differ among ranks, in so many pieces.
void append_in(std::size_t count, std::vector<piece> more, std::vector<piece>& pieces);

}  // namespace tandem::train
