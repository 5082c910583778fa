// One forward pass of a decoder-only model over the rows of one step, as a program of pieces: the
// embedding, each layer, the head. Between two pieces the owner may look at its mailbox. On a
// device that runs whole programs, a step that only decodes is one piece.
//
// Rows of one pass share whole weights; groups of them may each have an adapter over these. Passes
// over other weights of the same config follow one another in the same memory. What a row comes to
// does not depend on the other rows or their adapters.
//
// Of a model that several ranks hold together (tensor_split.hpp) each rank runs its own pass over
// its own weights, piece by piece the same one; they meet in a collective after each product.
#pragma once

#include "kernels/backend.hpp"
#include "kernels/collective.hpp"
#include "runtime/memory/arena.hpp"
#include "runtime/memory/ledger.hpp"
#include "runtime/model/adapter.hpp"
#include "runtime/model/weights.hpp"

#include <memory>
#include <span>
#include <vector>

namespace tandem::model {

struct forward_limits {
  std::int64_t rows = 0;        // T: most rows of one step
  std::int64_t logit_rows = 0;  // most rows of one step whose logits are wanted
  std::int64_t context_positions = 0;
  std::int64_t kv_blocks = 0;
  kernels::kv_format kv = kernels::kv_format::f16;
};

// Consecutive rows with one adapter, or with none (null).
struct row_group {
  std::int32_t first_row = 0;
  std::int32_t row_count = 0;
  const adapter* with = nullptr;
};

// What one step computes. All that is pointed to must stay valid until the pass is done.
struct forward_input {
  std::span<const std::int32_t> ids_T;
  std::span<const std::int32_t> positions_T;
  std::span<const kernels::attention_span> spans;  // cover all rows
  std::span<const std::int32_t> logit_rows;        // ascending row indices
  // Cover all rows in order, those without an adapter first; empty: no row has one.
  std::span<const row_group> groups;
  const weights* over = nullptr;  // null: the weights the pass was made with
  // Rows of logits to keep, of passes just before: this one's stand behind them.
  std::int64_t kept_logits = 0;
};

class forward_pass {
  struct state;

 public:
  explicit forward_pass(std::unique_ptr<state> s);  // by `create`
  // Bytes of one KV block over all layers, and of the activations and workspace for such steps; of
  // a model that can be split so.
  static std::uint64_t kv_block_bytes(const kernels::backend& device, const model_config& config,
                                      kernels::kv_format format, tensor_rank place = {});
  static std::uint64_t activation_bytes(const kernels::backend& device, const model_config& config,
                                        const forward_limits& limits, tensor_rank place = {});

  // Reserves everything a pass will ever need; nothing is allocated afterwards. `ranks`, where the
  // weights are one of several ranks' (null otherwise), must outlive the pass.
  static result<std::unique_ptr<forward_pass>> create(kernels::backend& device,
                                                      memory::ledger& book,
                                                      std::shared_ptr<const weights> model,
                                                      const forward_limits& limits,
                                                      kernels::collective* ranks = nullptr);
  ~forward_pass();

  void begin(const forward_input& input);
  // Runs the next piece; false once the logits are there (and no further piece is left). Other
  // users of the backend may bind a workspace of their own between two pieces.
  bool advance();
  std::size_t piece_count() const;
  // logits_BV of the last finished pass: those kept, then one row per logit row, in order; whole on
  // each rank.
  // Writable: samplers work in place.
  kernels::rows_out logits() const;

  const weights& model() const;
  // The memory of the KV blocks; block b lies at b * kv_block_bytes().
  const std::shared_ptr<memory::arena>& kv() const;
  std::size_t kv_block_bytes() const;
  // Whether such an adapter (weights) can be run here: the shapes of this model, and a stacked rank
  // within bounds. Refuses with the numbers.
  result<void> check(const adapter& with) const;
  result<void> check(const weights& over) const;

 private:
  std::unique_ptr<state> state_;
};

}  // namespace tandem::model
