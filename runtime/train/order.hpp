// What a device is told to do for a training job, and what came of it. The train coordinator sends
// these; the trainer carries each out as a program of pieces.
#pragma once

#include "runtime/model/adapter.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/train/batch.hpp"
#include "runtime/train/group_layout.hpp"
#include "runtime/train/job_settings.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace tandem::train {

class trainer_memory;  // trainer.hpp: what the devices of a group read of each other

inline constexpr std::size_t group_max = 1024;  // devices that one job lies on

// Opens a job on a device.
struct open_order {
  std::string job;
  std::string model_path;  // the base: LoRA shares the served weights, full training reads it
  job_settings settings;
  int device_count = 1;  // of the group; a power of two, at most settings.slots
  int device_rank = 0;   // its home is slots [rank * slots / count, (rank + 1) * slots / count)
  // A checkpoint folder to go on from (checkpoint.hpp); empty: from the base.
  std::string checkpoint;
  // Devices of the group that do not all share memory: each has room for others' work, and
  // versions are served from checkpoints.
  bool apart = false;
  // Of a group apart: the rank whose shard this device keeps a copy of, if it has the room; -1:
  // none.
  int keeps = -1;
};

// Bytes a job takes of a device, by what for; stated before anything is taken.
struct memory_plan {
  std::uint64_t parameters = 0;  // masters, or the adapter
  std::uint64_t gradients = 0;
  std::uint64_t optimizer = 0;
  std::uint64_t activations = 0;
  std::uint64_t workspace = 0;
  std::uint64_t serving_copies = 0;  // both halves of the double buffer
  std::uint64_t guests = 0;          // work for devices that share no memory with this one
  std::uint64_t copies = 0;          // of another's parameters and optimizer
  std::uint64_t total() const {
    return parameters + gradients + optimizer + activations + workspace + serving_copies + guests +
           copies;
  }
  bool operator==(const memory_plan&) const = default;
};

struct opened {
  memory_plan memory;
  std::int64_t trainable_parameters = 0;
  std::int64_t step = 0;  // steps already in the parameters: 0, or the checkpoint's
  group_layout layout;
  std::shared_ptr<trainer_memory> shared;
  int keeps = -1;  // as ordered, or -1 where there is no room for the copy
};

// Work has a home, the rank of the group in whose memory its outcome lies; any device that has the
// job open may do it, with the same bits. So a device can leave and come back between two orders.
// Where devices do not share memory: see group_layout.hpp.
enum class order_kind : std::uint8_t {
  accumulate,  // forward and backward of home's slots of one round, into home's gradients
  evaluate,    // forward only: losses of home's slots of a round
  reduce,      // of a group: this round's gradients of home's shard, from all homes
  norm,        // squares of the gradients of home's shard, once all rounds are in
  update,      // AdamW on home's shard
  gather,      // of a group: everyone else's updated parameters, into home's memory
  publish      // make home's serving copy (LoRA: the adapter) of the parameters as they are now
};

struct order {
  order_kind kind = order_kind::accumulate;
  std::string job;
  std::int64_t step = 0;
  int round = 0;  // the first zeroes the gradients
  int home = 0;   // a rank of the group
  // accumulate, evaluate: home's slots, in slot order; each target's loss is multiplied by
  // `scale` (1 / step_rows::counted) in gradients.
  std::vector<slot_rows> slots;
  double scale = 0.0;
  // update
  double learning_rate = 0.0;
  double gradient_scale = 1.0;
  // publish
  std::uint64_t version = 0;
};

struct slot_loss {
  double loss_sum = 0.0;     // nats, over counted targets
  std::int64_t counted = 0;  // targets
  std::int64_t correct = 0;  // of them: the most likely token was the right one
  bool operator==(const slot_loss&) const = default;
};

struct outcome {
  order_kind kind = order_kind::accumulate;
  std::int64_t step = 0;
  std::vector<slot_loss> losses;  // accumulate, evaluate: in slot order
  int home = 0;
  // norm: one number a parameter tensor of home's shard, in layout order. The whole norm is the
  // sum over all shards in rank order, then its root.
  std::vector<double> squares;
  // publish: one of the two
  std::shared_ptr<const model::adapter> adapter;
  std::shared_ptr<const model::weights> weights;
  std::int64_t device_ns = 0;  // time the device worked on it
};

}  // namespace tandem::train
