// Where the numbers of full training lie when several ranks hold a model together: each rank's
// arenas are laid out as one device's are, of its own rows alone. Rows are dealt in whole panels
// (tensor_split.hpp), so a rank's part of a packed matrix is a few runs of the whole one's floats.
// What checkpoints hold, and what norms are added up of, is the whole.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/model/model_config.hpp"
#include "runtime/result.hpp"
#include "runtime/train/group_layout.hpp"

#include <cstddef>
#include <vector>

namespace tandem::train {

// Floats [whole, whole + floats) of one device's arena are [own, own + floats) of this rank's.
struct rank_run {
  std::size_t whole = 0;
  std::size_t own = 0;
  std::size_t floats = 0;
  int rank = 0;
  bool operator==(const rank_run&) const = default;
};

struct rank_layout {
  // Refuses heads that are no whole panels.
  static result<rank_layout> make(const kernels::backend& device, const model::model_config& config,
                                  int ranks);

  // Runs within [first, first + count) of the whole, ascending; what none has is padding, and zero.
  // What several ranks hold alike is there for each; `runs_once`: the first one's.
  std::vector<rank_run> runs(std::size_t first, std::size_t count) const;
  std::vector<rank_run> runs_once(std::size_t first, std::size_t count) const;
  std::size_t floats() const;

  std::vector<parameter> whole;
  std::vector<std::vector<parameter>> of_rank;  // the same tensors in the same order
  std::vector<rank_run> held;                   // by (whole, rank)
};

}  // namespace tandem::train
