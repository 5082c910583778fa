// One forward pass of a decoder-only model over the rows of one step, as a program of pieces: the
// embedding, each layer, the head. Between two pieces the owner may look at its mailbox.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/memory/arena.hpp"
#include "runtime/memory/ledger.hpp"
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

// What one step computes. All spans must stay valid until the pass is done.
struct forward_input {
  std::span<const std::int32_t> ids_T;
  std::span<const std::int32_t> positions_T;
  std::span<const kernels::attention_span> spans;  // cover all rows
  std::span<const std::int32_t> logit_rows;        // ascending row indices
};

class forward_pass {
  struct state;

 public:
  explicit forward_pass(std::unique_ptr<state> s);  // by `create`
  // Bytes of one KV block over all layers, and of the activations and workspace for such steps.
  static std::uint64_t kv_block_bytes(const kernels::backend& device, const model_config& config,
                                      kernels::kv_format format);
  static std::uint64_t activation_bytes(const kernels::backend& device, const model_config& config,
                                        const forward_limits& limits);

  // Reserves everything a pass will ever need; nothing is allocated afterwards.
  static result<std::unique_ptr<forward_pass>> create(kernels::backend& device,
                                                      memory::ledger& book,
                                                      std::shared_ptr<const weights> model,
                                                      const forward_limits& limits);
  ~forward_pass();

  void begin(const forward_input& input);
  // Runs the next piece; false once the logits are there (and no further piece is left).
  bool advance();
  std::size_t piece_count() const;
  // logits_BV of the last finished pass: one row per logit row, in order. Writable: samplers work
  // in place.
  kernels::rows_out logits() const;

  const weights& model() const;

 private:
  std::unique_ptr<state> state_;
};

}  // namespace tandem::model
