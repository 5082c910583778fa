// The head and its loss, a piece of the vocabulary at a time and over the counted rows alone: first
// every piece's logits are observed for the softmax, then computed again and turned into gradients.
// No more than the limits' head_columns of a row's logits ever exist.
#include "runtime/train/train_rows.hpp"

#include <algorithm>
#include <cmath>

namespace tandem::train {

using kernels::rows_out;

std::int64_t train_pass::columns_from(std::int64_t first_id) const {
  return std::min(head_columns_, config().vocabulary_size - first_id);
}

void train_pass::plan_head(bool backward, std::vector<piece>& pieces) {
  const auto V = config().vocabulary_size;
  const auto D = config().model_size;
  pieces.emplace_back([this, D] {
    const auto last_BD = counted_rows(places_.last_BD, D);
    device_.gather_rows(rows(places_.last_x_TD, D), counted_, last_BD);
    device_.rms_norm(last_BD, what_.weights->final_norm_D, config().norm_eps,
                     counted_rows(places_.normed_BD, D));
  });
  for (std::int64_t first = 0; first < V; first += head_columns_)
    pieces.emplace_back([this, first] { observe(first); });
  pieces.emplace_back([this] { sum_losses(); });
  if (!backward) return;
  for (std::int64_t first = 0; first < V; first += head_columns_) {
    pieces.emplace_back([this, first] { head_gradient(first); });
    pieces.emplace_back([this, first] { head_input_backward(first); });
    if (full()) pieces.emplace_back([this, first] { head_weights_backward(first); });
  }
  pieces.emplace_back([this] { leave_head(); });
}

rows_out train_pass::head_logits(std::int64_t first_id) {
  const auto& c = config();
  const auto columns = columns_from(first_id);
  const auto logits_BP = counted_rows(places_.logits_BP, columns);
  const auto own = ranks_.own_logits(first_id, columns);
  if (own.count > 0)
    device_.linear(counted_rows(places_.normed_BD, c.model_size),
                   own_head(what_.weights->head_VD, first_id, columns), nullptr, false,
                   columns_of(logits_BP, own));
  ranks_.gather_logits(logits_BP, first_id);
  return logits_BP;
}

// This rank's rows of the head, of this piece.
kernels::packed_matrix train_pass::own_head(const kernels::packed_matrix& head_VD,
                                            std::int64_t first_id, std::int64_t columns) {
  const auto own = ranks_.own_logits(first_id, columns);
  return device_.rows_of(head_VD, first_id + own.first - ranks_.own().vocabulary.first, own.count);
}

void train_pass::observe(std::int64_t first_id) {
  device_.cross_entropy_observe(head_logits(first_id), static_cast<std::int32_t>(first_id),
                                entropies_);
}

void train_pass::sum_losses() {
  for (std::size_t s = 0; s < losses_.size(); ++s) {
    const auto& segment = counted_segments_[s];
    for (std::int64_t b = segment.first_row; b < segment.first_row + segment.row_count; ++b) {
      const auto& row = entropies_[static_cast<std::size_t>(b)];
      losses_[s].loss_sum += static_cast<double>(row.maximum) +
                             std::log(static_cast<double>(row.sum)) -
                             static_cast<double>(row.target_logit);
      losses_[s].correct += row.best == row.target ? 1 : 0;
    }
    losses_[s].counted = segment.row_count;
  }
}

void train_pass::head_gradient(std::int64_t first_id) {
  device_.cross_entropy_backward(head_logits(first_id), static_cast<std::int32_t>(first_id),
                                 entropies_, scales_);
}

void train_pass::head_input_backward(std::int64_t first_id) {
  const auto& c = config();
  const auto dlogits_BP = counted_rows(places_.logits_BP, columns_from(first_id));
  const bool alone = ranks_.alone();
  if (full() && alone) device_.hold_rows(dlogits_BP);
  const auto& head_VD = what_.weights->head_VD;
  multiply_back(dlogits_BP,
                alone ? device_.rows_of(head_VD, first_id, dlogits_BP.columns) : head_VD,
                ranks_.head_rows(first_id, dlogits_BP.columns), first_id > 0,
                counted_rows(places_.dnormed_BD, c.model_size));
}

void train_pass::head_weights_backward(std::int64_t first_id) {
  const auto& c = config();
  const auto dlogits_BP = counted_rows(places_.logits_BP, columns_from(first_id));
  const auto own = ranks_.own_logits(first_id, dlogits_BP.columns);
  if (own.count > 0)
    device_.linear_backward_weights(
        columns_of(dlogits_BP, own), counted_rows(places_.normed_BD, c.model_size),
        counted_segments_,
        own_head(what_.gradient(what_.weights->head_VD), first_id, dlogits_BP.columns));
  device_.hold_rows({});
}

// From the counted rows back to all of them.
void train_pass::leave_head() {
  const auto& c = config();
  const auto D = c.model_size;
  const auto* const norm_D = what_.weights->final_norm_D;
  ranks_.gather_rows(counted_rows(places_.dnormed_BD, D));
  const auto dlast_BD = counted_rows(places_.normed_BD, D);
  device_.rms_norm_backward(counted_rows(places_.dnormed_BD, D), counted_rows(places_.last_BD, D),
                            norm_D, c.norm_eps, counted_segments_, false, dlast_BD,
                            full() ? what_.gradient(norm_D) : nullptr);
  const auto dx_TD = rows(places_.dx_TD, D);
  device_.fill_zero(
      {reinterpret_cast<std::byte*>(dx_TD.data), static_cast<std::size_t>(T_ * D) * sizeof(float)});
  device_.scatter_add_rows(dlast_BD, counted_, dx_TD);
}

}  // namespace tandem::train
