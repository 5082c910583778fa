// What ranks that hold a model together bring each other in training, so that every sum is made
// once, whole, and in one device's order (tensor_split.hpp has the rule, and who has which part).
//
// Forward is serving's: each rank's columns of a product, put together. Backward, dw of a rank's
// outputs takes its own columns of dy and all of x: nothing moves. dx = dy w adds over all outputs:
// their rows of w are brought together in one room, one matrix at a time, each rank computes its
// share of dx's rows, and those are put together. What lies between products is computed on every
// rank alike, attention by a rank's own heads.
//
// So a layer brings a rank (k-1)/k of its weights and, of each row, of 6.5 D numbers forward and
// 18.5 D back (F = 3.5 D, as Llama 3 8B has it): of that model on 4 ranks in bfloat16, a round of
// 4096 rows moves 12 GB of weights and 40 GB of rows to a rank that computes 50 TFLOP. A second
// shard of w by its inputs would save the weights' part, for twice their memory.
#pragma once

#include "kernels/backend.hpp"
#include "kernels/collective.hpp"
#include "runtime/model/model_config.hpp"
#include "runtime/model/tensor_split.hpp"
#include "runtime/train/rank_layout.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace tandem::train {

// These columns of all rows.
template <class T>
kernels::basic_rows<T> columns_of(kernels::basic_rows<T> whole, model::output_range columns) {
  return {whole.data + columns.first, whole.rows, columns.count, whole.stride};
}

// Rows [whole_first, ...) of a matrix: rows_R[0] of them are rank 0's, then come rank 1's. This
// rank's stand in its own matrix from own_first on.
struct row_section {
  std::int64_t whole_first = 0;
  std::vector<std::int64_t> rows_R;
  std::int64_t own_first = 0;
};

class rank_exchange {
 public:
  // `ranks` null: one device alone, for which nothing below moves anything.
  rank_exchange(kernels::backend& device, const model::model_config& config,
                kernels::collective* ranks);

  bool alone() const { return ranks_ == nullptr; }
  const model::rank_part& own() const { return split_.own(); }
  // Whether a rank's query heads have their key heads to themselves.
  bool own_key_heads() const { return own_key_heads_; }
  // Columns of a rank's queries, keys and values, and where they stand in whole rows.
  std::int64_t qkv_columns() const;
  std::vector<model::output_range> qkv_parts() const;

  // Every rank has the columns of all, each of which lay in its own place.
  void gather_heads(kernels::rows_out whole_TNH) const;
  void gather_model(kernels::rows_out whole_TD) const;
  void gather_hidden(kernels::rows_out whole_TF) const;
  // Of vocabulary from first_id on.
  void gather_logits(kernels::rows_out logits_BP, std::int64_t first_id) const;
  model::output_range own_logits(std::int64_t first_id, std::int64_t columns) const;
  // The same of rows that lie apart.
  void gather_gate_up(kernels::rows_in own_TG, kernels::rows_out whole_TF2) const;
  void gather_qkv(kernels::rows_in own_TX, kernels::rows_out whole_TX) const;
  void gather_lse(const float* own_TN, std::int64_t rows, float* whole_TN) const;
  // And back: this rank's columns.
  void take_qkv(kernels::rows_in whole_TX, kernels::rows_out own_TX) const;

  // This rank's share of so many rows; then every rank has all of them.
  model::output_range share_of(std::int64_t rows) const;
  void gather_rows(kernels::rows_out x_TX) const;

  // Where each rank's rows of a product's whole matrix stand.
  std::vector<row_section> model_rows() const;
  std::vector<row_section> gate_up_rows() const;
  std::vector<row_section> qkv_rows() const;
  std::vector<row_section> head_rows(std::int64_t first_id, std::int64_t columns) const;
  // All rows of a matrix of which this rank has `own`, in `room` (packed_bytes of the whole).
  kernels::packed_matrix whole_of(const kernels::packed_matrix& own,
                                  const std::vector<row_section>& sections, std::int64_t whole_rows,
                                  std::span<std::byte> room) const;

  // Floats [first, first + count) of one device's arena, of which this rank has `own_arena`.
  void whole_floats(const rank_layout& layout, std::size_t first, std::size_t count,
                    const float* own_arena, float* into) const;

 private:
  using counts = std::vector<std::int64_t>;

  int rank() const { return split_.place.rank; }
  static std::int64_t of(const counts& list, int rank) {
    return list[static_cast<std::size_t>(rank)];
  }
  void gather(kernels::rows_out whole, model::output_range mine, const counts& columns) const;

  kernels::backend& device_;
  kernels::collective* ranks_;
  model::tensor_split split_;
  std::int64_t head_size_;
  std::int64_t query_heads_;
  std::int64_t key_heads_;
  bool own_key_heads_ = true;
  // Of each rank; of key heads that several hold, the first one's.
  counts query_;
  counts key_;
  counts query_columns_;
  counts key_columns_;
  counts model_;
  counts hidden_;
  counts gate_up_;
};

}  // namespace tandem::train
