// One device's arenas of a training job, and the group's: what the coordinator's orders work on.
// Whatever a peer reads or writes in this device's stead lies here, and lives as long as somebody
// holds it.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/memory/arena.hpp"
#include "runtime/memory/ledger.hpp"
#include "runtime/model/adapter.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/train/serving_copy.hpp"
#include "runtime/train/trainer.hpp"

#include <cstddef>
#include <cstdint>
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

// How far an order that changes a home's memory piece by piece has come: whoever begins it again,
// after it was dropped elsewhere, goes on from there.
struct order_progress {
  order_kind kind = order_kind::norm;
  std::int64_t step = 0;
  int round = 0;
  std::size_t pieces_done = 0;
};

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

  // Of a group in full training: what reached the embedding in this home's rows of the round.
  memory::arena embedded_rows;
  std::vector<token_id> embedded_ids;
  kernels::rows_in embedded_gradient;

  std::unique_ptr<serving_copy> copies;  // full training
  order_progress progress;
};

}  // namespace tandem::train
