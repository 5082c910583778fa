// Tensor parallelism: which part of a model each of k ranks holds, decided from its config alone.
//
// Columns are split everywhere, sums never are: of every product a rank computes some outputs over
// the whole inner side, by the kernel that one device would use, and the ranks put the columns
// together (kernels/collective.hpp). So each number is computed once, by the same operations in the
// same order: k devices give the bits of one, in every weight format. What it costs: a layer brings
// a rank (k-1)/k * (N*H + 2D + F) numbers a row, where splitting sums and adding them (Megatron-LM,
// arXiv:1909.08053) takes (k-1)/k * 4D: of Llama 3 8B (N*H = D, F = 3.5 D) 6.5 D against 4 D.
//
// Norms, the embedding's table and what stands between products are whole on each rank.
#pragma once

#include "runtime/model/model_config.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <vector>

namespace tandem::model {

// One of the ranks that hold a model together.
struct tensor_rank {
  int rank = 0;
  int ranks = 1;
  bool operator==(const tensor_rank&) const = default;
};

struct output_range {
  std::int64_t first = 0;
  std::int64_t count = 0;  // may be 0 where there are fewer units than ranks
  bool operator==(const output_range&) const = default;
};

// What one rank computes: its heads, and which outputs of the products that make D (attention's
// output, down), F (gate and up) and V (the head).
struct rank_part {
  output_range query_heads;
  output_range key_heads;
  output_range model;
  output_range hidden;
  output_range vocabulary;
  bool operator==(const rank_part&) const = default;
};

struct tensor_split {
  // Ranges in order of rank, adjacent, and together the whole. Outputs are dealt in units of 32
  // (two panels of a packed matrix), heads by whole key heads; where there are fewer of these than
  // ranks, several keep the same one and divide its query heads. Refuses with the numbers what
  // cannot be divided so; one rank can hold anything.
  static result<tensor_split> make(const model_config& config, tensor_rank place);

  const rank_part& own() const { return parts[static_cast<std::size_t>(place.rank)]; }

  tensor_rank place;
  std::vector<rank_part> parts;  // of each rank
};

// How many outputs of gate and up, as `linear` sees them (backend::gated_as_linear).
constexpr std::int64_t gate_up_columns(std::int64_t hidden) { return (hidden + 15) / 16 * 32; }

}  // namespace tandem::model
