// Forward and backward of one round over this device's slots, side by side in one set of rows, as a
// program of pieces of half a layer at most. The rule: what a row is worth depends on its own
// example alone; what a gradient is worth, on the slot tree of kernels/backend.hpp alone.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/memory/arena.hpp"
#include "runtime/model/adapter.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/train/activation_places.hpp"
#include "runtime/train/order.hpp"
#include "runtime/train/parameter_twin.hpp"
#include "runtime/train/rank_exchange.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace tandem::train {

using piece = std::function<void()>;

// Bytes that bringing a rank's matrices together takes, of the weights it computes with.
std::size_t room_for_weights(const kernels::backend& device, const model::weights& weights,
                             const rank_exchange& ranks, std::int64_t head_columns);

// Rows without gaps, to where they lie likewise.
void copy_rows(kernels::backend& device, kernels::rows_in from, float* to);

// What is computed with and what of it is trained.
struct trained_model {
  std::shared_ptr<const model::weights> weights;  // the base, or the masters themselves
  const std::vector<model::layer_adapter>* adapter = nullptr;  // null: full training
  float adapter_scale = 0.0F;
  // From a trained tensor to its gradient.
  parameter_twin gradient;
  // Whole, of which a rank trains its own rows alone. Elsewhere data null: it is the weights'.
  kernels::packed_matrix table_VD;
  // Of a group, the embedding's own gradient is not added here: see reduce_group.hpp.
  bool add_embedding = true;
};

class train_pass {
 public:
  // `ranks`: where several hold the weights together; outlives the pass. `activations` are then
  // those of activation_places and behind them room for the largest matrix of room_for_weights.
  train_pass(kernels::backend& device, trained_model what, const pass_limits& limits,
             std::span<std::byte> activations, kernels::collective* ranks = nullptr);

  // Takes the rows in; `pieces` gets the program appended that computes them. Targets' losses are
  // multiplied by `scale` in gradients. Pieces must run in order, each once, before the next begin.
  void begin(std::vector<slot_rows> slots, double scale, bool backward, std::vector<piece>& pieces);
  // Where the next program's gradients go: any arena of the parameters' layout.
  void write_gradients_to(parameter_twin gradient);
  // Of the last finished program, in slot order.
  const std::vector<slot_loss>& losses() const { return losses_; }

  // What reached the embedding's rows in the last backward, and whose rows they are. Empty where
  // nothing was counted. For the one who holds the embedding's gradient.
  std::span<const token_id> embedded_ids() const { return embedded_; }
  kernels::rows_in embedded_gradient() const {
    return {floats(places_.dx_TD), T_, config().model_size};
  }

 private:
  struct layer_rows;

  const model::model_config& config() const { return what_.weights->config; }
  std::span<std::byte> weights_room() const { return memory_.subspan(places_.total); }
  bool full() const { return what_.adapter == nullptr; }
  float* floats(std::size_t place) const;
  kernels::rows_out rows(std::size_t place, std::int64_t columns) const {
    return {floats(place), T_, columns};
  }
  kernels::rows_out counted_rows(std::size_t place, std::int64_t columns) const {
    return {floats(place), B_, columns};
  }
  layer_rows rows_of(std::size_t layer) const;
  kernels::moe_routes routes_of(std::size_t layer) const;
  const model::layer_adapter& adapter_of(std::size_t layer) const;

  // train_pass.cpp
  void lay_out(std::span<const slot_rows> slots);
  void copy(kernels::rows_in from, kernels::rows_out to);
  // y += scale * B (A x), of these outputs; they stand in y one after the other.
  void adapt(kernels::rows_in x, const model::adapter_product& adapter, bool gated,
             std::span<const model::output_range> outputs, kernels::rows_out y);
  model::output_range own_gate_up() const;

  // train_forward.cpp
  void embed();
  void attention(std::size_t layer);
  // Its input and gate_up's output, then down to the layer's output. `again`: what backward needs
  // besides gate_up's, without that output.
  void gate_up(std::size_t layer);
  void feed_forward(std::size_t layer, bool again);
  kernels::rows_out activated(std::size_t layer);
  void product_out(kernels::rows_in x, const kernels::packed_matrix& w, const float* bias,
                   const model::adapter_product& adapter, kernels::rows_out out);
  void moe_forward(std::size_t layer, bool again);

  // train_head.cpp
  void plan_head(bool backward, std::vector<piece>& pieces);
  std::int64_t columns_from(std::int64_t first_id) const;  // of the head's piece there
  kernels::rows_out head_logits(std::int64_t first_id);
  kernels::packed_matrix own_head(const kernels::packed_matrix& head, std::int64_t first_id,
                                  std::int64_t columns);
  void observe(std::int64_t first_id);
  void sum_losses();
  // Of the logits, in their place; from there of the rows and of the head's own rows.
  void head_gradient(std::int64_t first_id);
  void head_input_backward(std::int64_t first_id);
  void head_weights_backward(std::int64_t first_id);
  void leave_head();

  // train_backward.cpp
  struct product {
    kernels::rows_in x;
    const kernels::packed_matrix* w;
    const float* bias;
    const model::adapter_product* adapter;
    bool gated;
    std::vector<row_section> rows;  // where each rank's stand
  };
  kernels::packed_matrix as_linear(const product& p, const kernels::packed_matrix& w);
  // dx = dy w, of the whole of a matrix that ranks have in sections; `add`: += . Each rank then
  // has all rows of dx, or its share of them alone.
  void multiply_back(kernels::rows_in dy, const kernels::packed_matrix& w,
                     const std::vector<row_section>& sections, bool add, kernels::rows_out dx);
  // The gradient of the product's weights, from this rank's columns of dy; then of its input, into
  // `dx` where it has data, and of its adapter, from all of dy.
  void weights_backward(kernels::rows_in dy, const product& p);
  void input_backward(kernels::rows_in dy, const product& p, kernels::rows_out dx);
  product down_of(std::size_t layer) const;
  product gate_up_of(std::size_t layer) const;
  product qkv_of(std::size_t layer) const;
  product output_of(std::size_t layer) const;
  kernels::rows_in feed_forward_gradient() const;
  // In pieces, each of one or two products: down to gate_up's gradient (kept in its place), from
  // there to dx_TD; down to qkv's gradient, from there to dx_TD.
  void down_weights_backward(std::size_t layer);
  void hidden_backward(std::size_t layer);
  void gate_up_weights_backward(std::size_t layer);
  void feed_forward_backward(std::size_t layer);
  void moe_backward(std::size_t layer, kernels::rows_in h);
  void attention_backward(std::size_t layer);
  void qkv_backward(std::size_t layer);
  void embedding_backward();
  void own_embedding_backward();
  void heads_backward(const layer_rows& a, kernels::rows_in dheads, kernels::rows_out dqkv);
  kernels::rows_in whole_qkv(kernels::rows_in own, bool wanted);
  kernels::rows_in whole_gate_up(kernels::rows_out own);
  std::int64_t whole_qkv_columns() const;

  kernels::backend& device_;
  trained_model what_;
  rank_exchange ranks_;
  activation_places places_;
  std::span<std::byte> memory_;
  bool recompute_ = false;
  bool long_rope_ = false;  // rope angles for more positions than the original context
  std::int64_t rows_limit_ = 0;
  std::int64_t head_columns_ = 0;
  // Of each layer, within the gradients' arena.
  std::vector<std::vector<kernels::expert_matrices>> expert_gradients_;

  // Of the round in hand.
  std::int64_t T_ = 0;
  std::int64_t B_ = 0;  // rows with a target
  std::vector<token_id> ids_;
  std::vector<token_id> embedded_;
  std::vector<std::int32_t> embedded_rows_;  // of a rank: whose ids are of its rows of the table
  std::vector<std::int32_t> positions_;
  std::vector<kernels::packed_span> examples_;
  std::vector<kernels::row_segment> segments_;          // rows of each slot
  std::vector<std::int32_t> counted_;                   // their indices
  std::vector<kernels::row_segment> counted_segments_;  // among the counted, of each slot
  std::vector<kernels::cross_entropy_row> entropies_;
  std::vector<float> scales_;
  std::vector<slot_loss> losses_;
};

}  // namespace tandem::train
