// How the gradients of a group's devices meet, to the bit as if one device had computed all slots:
// devices hold aligned runs of slots, so their sums are leaves of the upper slot tree
// (kernels/backend.hpp), which is added once to what the rounds before came to. The embedding's own
// gradient is one chain over all rows in slot order, after the tree; so it is added here, from
// every device's rows, by whoever holds that tensor.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/train/device_memory.hpp"
#include "runtime/train/train_pass.hpp"

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace tandem::train {

// Numbers touched by one piece of plain array work: a few milliseconds on a CPU even where it is
// the first to touch the memory (8 MiB), half of one on a GPU.
inline std::size_t piece_floats_of(const kernels::backend& device) {
  return std::size_t{device.host_memory() ? 2U : 32U} << 20;
}

// Scratch that `plan_reduce` wants for a group of so many devices, in floats.
std::size_t reduce_scratch_floats(int devices);

struct embedding_chain {
  kernels::packed_matrix table_VD;  // data null: not trained
  std::size_t first_float = 0;      // its place in the parameter arena
  float scale = 1.0F;
};

// Adds this round's gradients of the own shard, from all devices of `group` in rank order, into
// mine.summed; the first round begins it anew.
void plan_reduce(kernels::backend& device, device_memory& mine,
                 const std::vector<std::shared_ptr<device_memory>>& group, bool first_round,
                 const embedding_chain& chain, std::span<float> scratch,
                 std::vector<piece>& pieces);

// Copies the parameters of everyone else's shard. A mirror's are brought to their place.
void plan_gather(kernels::backend& device, device_memory& mine,
                 const std::vector<std::shared_ptr<device_memory>>& group,
                 std::vector<piece>& pieces);

}  // namespace tandem::train
