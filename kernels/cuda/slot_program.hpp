// The slot tree of kernels/backend.hpp as a list of steps that a kernel takes one after the other
// with a stack: sum the rows of a slot, then add the sums that were waiting for it. Empty slots are
// zero: nothing is done for them.
#pragma once

#include "kernels/backend.hpp"

#include <algorithm>
#include <vector>

namespace tandem::kernels::cuda {

// Before every step but the first the sum so far goes to the stack; after its rows are summed the
// step takes `adds` sums off again, each added in front.
struct slot_step {
  std::int32_t first_row = 0;
  std::int32_t row_count = 0;
  std::int32_t adds = 0;
};
struct slot_program {
  std::vector<slot_step> steps;
  int depth = 0;  // most sums that wait at a time
};

// Whether slots [begin, end) have a row; their steps go to `program`.
inline bool append_slots(std::span<const row_segment> slots, slot_program& program) {
  if (slots.size() == 1) {
    if (slots[0].row_count == 0) return false;
    program.steps.push_back({static_cast<std::int32_t>(slots[0].first_row),
                             static_cast<std::int32_t>(slots[0].row_count), 0});
    return true;
  }
  const bool left = append_slots(slots.first(slots.size() / 2), program);
  const bool right = append_slots(slots.subspan(slots.size() / 2), program);
  if (left && right) ++program.steps.back().adds;
  return left || right;
}

inline slot_program slot_program_of(std::span<const row_segment> slots) {
  slot_program program;
  if (!slots.empty()) append_slots(slots, program);
  int waiting = 0;
  for (std::size_t i = 0; i < program.steps.size(); ++i) {
    if (i > 0) program.depth = std::max(program.depth, ++waiting);
    waiting -= program.steps[i].adds;
  }
  return program;
}

}  // namespace tandem::kernels::cuda
