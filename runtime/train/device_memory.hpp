// One device's arenas of a training job, and the group's: what the coordinator's orders work on.
// Everything a peer reads lies here and lives as long as somebody holds it.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/memory/arena.hpp"
#include "runtime/memory/ledger.hpp"
#include "runtime/model/adapter.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/train/trainer.hpp"

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace tandem::train {

// Floats [begin, end) of the arena, which are tensors [first_tensor, last_tensor) of the layout.
struct shard {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::size_t first_tensor = 0;
  std::size_t last_tensor = 0;
  std::size_t floats() const { return end - begin; }
};

// Whole tensors, contiguous, as even as whole tensors allow. Shards may be empty.
std::vector<shard> shards_of(const std::vector<parameter>& layout, int count);

inline std::span<float> floats_of(const memory::arena& arena) {
  return {reinterpret_cast<float*>(arena.bytes().data()), arena.bytes().size() / sizeof(float)};
}

class device_memory final : public trainer_memory {
 public:
  state_view view() const override {
    return {parameters, floats_of(first_moments), floats_of(second_moments), own.begin, own.end};
  }
  const std::vector<parameter>& layout() const override { return parameter_list; }
  // What update reads: of a group the sum over its devices, of one device its own.
  std::span<float> shard_gradient() const {
    if (devices > 1) return floats_of(summed);
    return floats_of(gradients);
  }

  std::shared_ptr<memory::ledger> book;           // before the arenas booked there
  std::shared_ptr<const model::weights> masters;  // full training
  std::shared_ptr<model::adapter> adapter;        // LoRA
  std::span<float> parameters;                    // of one of the two
  std::vector<parameter> parameter_list;
  int devices = 1;
  shard own;

  memory::arena gradients;       // this device's slots, all parameters
  memory::arena summed;          // of a group: all devices' rounds so far, own shard
  memory::arena first_moments;   // own shard
  memory::arena second_moments;  // own shard
  memory::arena activations;
  memory::arena workspace;

  // Of a group: what reached the embedding in this device's rows (in `activations`).
  std::span<const token_id> embedded_ids;
  kernels::rows_in embedded_gradient;
};

}  // namespace tandem::train
