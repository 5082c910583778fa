// What a job takes of a device, worked out from config and settings before anything is taken.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/memory/ledger.hpp"
#include "runtime/model/adapter.hpp"
#include "runtime/model/model_config.hpp"
#include "runtime/result.hpp"
#include "runtime/train/activation_places.hpp"
#include "runtime/train/device_memory.hpp"
#include "runtime/train/order.hpp"
#include "runtime/train/trainer.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tandem::train {

struct job_plan {
  memory_plan memory;
  int slots = 0;                   // of this device
  std::int64_t slot_rows_max = 0;  // rows of one slot
  pass_limits limits;
  kernels::step_limits steps;
  std::size_t activation_bytes = 0;  // of the pass; the group's scratch lies behind it
  std::size_t scratch_floats = 0;
  std::size_t embedded_bytes = 0;  // of a group in full training: see reduce_group.hpp
  std::size_t table_bytes = 0;     // of ranks in full training: the whole embedding, to look up
  group_layout layout;
  std::int64_t trainable = 0;
  model::adapter_layout adapter;  // LoRA
};

// Refuses settings that cannot be: slots, group, rank, targets, lengths. `place`: of several ranks
// that hold the model together, one's; what bringing weights together takes is not in it.
result<job_plan> plan_job(const kernels::backend& device, const model::model_config& config,
                          const open_order& order, model::tensor_rank place = {});

// Refuses (no_memory) what is not free, with what takes how much and what would take less.
result<void> check_fits(const job_plan& plan, const open_order& order, const memory::ledger& book);

}  // namespace tandem::train
