// Backward of a mixture of experts: each expert's rows are gathered and go back through it alone.
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/op_checks.hpp"

#include <algorithm>
#include <cmath>

namespace tandem::kernels::cpu {

// Chosen weights are w_j = p_j / s with p the softmax over all experts: s is their sum when
// normalized (then a softmax over the chosen alone), else 1.
void cpu_device::moe_route_backward(rows_in logits_TE, bool normalize, const moe_routes& routes,
                                    const float* dweights, rows_out dlogits_TE) {
  require(checks::moe_route_backward(logits_TE, routes, dlogits_TE));
  for_rows(logits_TE.rows, [&](std::int64_t t) {
    const std::int32_t* ids = routes.ids + t * routes.count;
    const float* weights = routes.weights + t * routes.count;
    const float* d = dweights + t * routes.count;
    float* dlogits = dlogits_TE.row(t);
    float along = 0.0F;
    for (std::int64_t j = 0; j < routes.count; ++j) along += weights[j] * d[j];
    if (normalize) {
      std::fill_n(dlogits, logits_TE.columns, 0.0F);
    } else {
      const float* logits = logits_TE.row(t);
      const float largest = logits[ids[0]];
      float sum = 0.0F;
      for (std::int64_t e = 0; e < logits_TE.columns; ++e) sum += std::exp(logits[e] - largest);
      for (std::int64_t e = 0; e < logits_TE.columns; ++e) {
        dlogits[e] = -along * (std::exp(logits[e] - largest) / sum);
      }
    }
    for (std::int64_t j = 0; j < routes.count; ++j) {
      dlogits[ids[j]] = weights[j] * (d[j] - along);
    }
  });
}

// Fills expert_rows_ with the rows that chose `expert`.
std::int64_t cpu_device::rows_of_expert(const moe_routes& routes, std::int64_t rows,
                                        std::int64_t expert) {
  expert_rows_.clear();
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int32_t* ids = routes.ids + row * routes.count;
    if (std::find(ids, ids + routes.count, expert) != ids + routes.count) {
      expert_rows_.push_back(static_cast<std::int32_t>(row));
    }
  }
  return std::ssize(expert_rows_);
}

void cpu_device::moe_backward(rows_in dy_TD, rows_in h_TD, const moe_routes& routes,
                              std::span<const expert_matrices> experts, activation act,
                              std::span<const row_segment> slots,
                              std::span<const expert_matrices> dexperts, rows_out dh_TD,
                              float* dweights) {
  require(checks::moe_backward(limits_, dy_TD, h_TD, routes, experts, slots, dexperts, dh_TD));
  const std::int64_t D = h_TD.columns;
  for_rows(dh_TD.rows, [&](std::int64_t t) { std::fill_n(dh_TD.row(t), D, 0.0F); });
  for (std::int64_t e = 0; e < std::ssize(experts); ++e) {
    const std::int64_t rows = rows_of_expert(routes, h_TD.rows, e);
    if (rows == 0) continue;
    const auto index = static_cast<std::size_t>(e);
    const packed_matrix gate_up_w = gated_as_linear(experts[index].gate_up_FD);
    const packed_matrix& down_w = experts[index].down_DF;
    const std::int64_t F = down_w.columns;
    const rows_out inputs{floats_at(layout_.expert_inputs), rows, D};
    const rows_out dy{floats_at(layout_.expert_gradients), rows, D};
    const rows_out gate_up{floats_at(layout_.expert_gate_up), rows, gate_up_w.rows};
    const rows_out hidden{floats_at(layout_.expert_hidden), rows, F};
    const rows_out dhidden{floats_at(layout_.expert_hidden_gradients), rows, F};
    const rows_out dinputs{floats_at(layout_.expert_outputs), rows, D};
    gather_rows(h_TD, expert_rows_, inputs);
    gather_rows(dy_TD, expert_rows_, dy);
    linear(inputs, gate_up_w, nullptr, false, gate_up);
    activate_gated(gate_up, act, hidden);
    linear_backward_input(dy, down_w, false, dhidden);
    // The weight scales the output: its gradient is dy . (down hidden) = (down^T dy) . hidden.
    for_rows(rows, [&](std::int64_t i) {
      const std::int64_t row = expert_rows_[static_cast<std::size_t>(i)];
      const std::int32_t* ids = routes.ids + row * routes.count;
      const std::int64_t at = std::find(ids, ids + routes.count, e) - routes.ids;
      const float weight = routes.weights[at];
      dweights[at] = table_.training->dot(hidden.row(i), dhidden.row(i), F);
      table_.training->scale(dhidden.row(i), weight, F, dhidden.row(i));
      table_.training->scale(dy.row(i), weight, D, dy.row(i));
    });
    activate_gated_backward(dhidden, act, gate_up);
    if (!dexperts.empty()) {
      // A slot's rows of this expert are adjacent too: both are in order.
      expert_slots_.clear();
      auto next = expert_rows_.begin();
      for (const row_segment& slot : slots) {
        const auto end =
            std::lower_bound(next, expert_rows_.end(), slot.first_row + slot.row_count);
        expert_slots_.push_back({next - expert_rows_.begin(), end - next});
        next = end;
      }
      linear_backward_weights(dy, hidden, expert_slots_, dexperts[index].down_DF);
      linear_backward_weights(gate_up, inputs, expert_slots_,
                              gated_as_linear(dexperts[index].gate_up_FD));
    }
    linear_backward_input(gate_up, gate_up_w, false, dinputs);
    scatter_add_rows(dinputs, expert_rows_, dh_TD);
  }
}

}  // namespace tandem::kernels::cpu
