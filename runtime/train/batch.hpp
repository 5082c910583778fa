// What one optimizer step reads, dealt to logical slots and rounds. Plain data: made by the step
// planner (runtime/train/step_planner.hpp), carried in orders, read by the trainer.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem::train {

using token_id = std::int32_t;

// What one slot computes in one round: whole examples side by side without padding. The row at t
// predicts targets[t], or nothing where that is -1 (prompt tokens, an example's last token).
struct slot_rows {
  std::vector<token_id> ids;
  std::vector<token_id> targets;
  std::vector<std::int32_t> example_rows;  // how many rows each example has, in order; sum = T
  bool operator==(const slot_rows&) const = default;
};

// One round: exactly `slots` entries in slot order; empty ones at the end of an epoch.
struct round_rows {
  std::vector<slot_rows> slots;
  bool operator==(const round_rows&) const = default;
};

struct step_rows {
  std::int64_t step = 0;     // counts from 1
  std::int64_t counted = 0;  // targets that are not -1, over all rounds: the loss is their mean
  std::vector<round_rows> rounds;
  bool operator==(const step_rows&) const = default;
};

}  // namespace tandem::train
