// Products of activations with packed weights, and what is made of them.
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/pack.hpp"
#include "kernels/op_checks.hpp"

#include <algorithm>

namespace tandem::kernels::cpu {

void cpu_device::embed(const packed_matrix& table_VD, std::span<const std::int32_t> ids_T,
                       float scale, rows_out x_TD) {
  require(checks::embed(table_VD, ids_T, x_TD));
  for_rows(x_TD.rows, [&](std::int64_t t) {
    unpack_row(table_VD, ids_T[static_cast<std::size_t>(t)], x_TD.row(t));
    if (scale == 1.0F) return;
    for (std::int64_t i = 0; i < x_TD.columns; ++i) x_TD.row(t)[i] *= scale;
  });
}

// Strips of the tallest height, then one each of 8, 4, 2 and 1 rows as needed.
void cpu_device::plan_strips(std::int64_t rows, int tallest) {
  strips_.clear();
  for (std::int64_t row = 0; row < rows;) {
    int height = tallest;
    if (rows - row < tallest) {
      height = 8;
      while (height > rows - row || height > tallest) height /= 2;
    }
    strips_.push_back({row, height});
    row += height;
  }
}

void cpu_device::run_product(rows_in x, const packed_matrix& w, product_task& task) {
  const bool blocks = is_block_format(w.format);
  const panel_layout layout = panel_layout::of(w.format, w.rows, w.columns);
  std::byte* activations = workspace_.data() + layout_.activations;
  task.format = w.format;
  task.weights = w.data;
  task.panel_bytes = layout.panel_bytes;
  task.columns = w.columns;
  task.blocks = layout.blocks;
  task.activations = activations;
  task.row_bytes =
      blocks ? task.blocks * (block_columns + 8) : task.columns * std::int64_t{sizeof(float)};
  plan_strips(x.rows, blocks ? table_.block_strip_rows : table_.float_strip_rows);
  task.strips = strips_.data();
  task.strip_count = std::ssize(strips_);

  const auto prepare = [&](range part) {
    for (std::int64_t s = part.begin; s < part.end; ++s) {
      const strip& at = strips_[static_cast<std::size_t>(s)];
      std::byte* out = activations + at.first_row * task.row_bytes;
      if (blocks) {
        table_.quantize_strip(x.row(at.first_row), x.stride, at.rows, x.columns, task.blocks,
                              w.format, out);
      } else {
        table_.interleave_strip(x.row(at.first_row), x.stride, at.rows, x.columns,
                                reinterpret_cast<float*>(out));
      }
    }
  };
  const bool shared = x.rows >= rows_worth_forking && team_.size() > 1;
  if (!shared) prepare({0, task.strip_count});

  // Float kernels take two panels at a time, gated ones belong in pairs.
  const std::int64_t panels_per_unit = task.gated || !blocks ? 2 : 1;
  const std::int64_t panels =
      task.gated ? layout.panels : (task.outputs + panel_outputs - 1) / panel_outputs;
  const std::int64_t units = (panels + panels_per_unit - 1) / panels_per_unit;
  team_.run([&](int thread) {
    if (shared) {
      prepare(part_of(task.strip_count, thread, team_.size()));
      team_.barrier();
    }
    const range part = part_of(units, thread, team_.size());
    table_.product(task, part.begin * panels_per_unit,
                   std::min(part.end * panels_per_unit, panels));
  });
}

void cpu_device::linear(rows_in x_TX, const packed_matrix& w_YX, const float* bias_Y, bool add,
                        rows_out y_TY) {
  if (x_TX.rows == 0) return;
  require(checks::linear(limits_, x_TX, w_YX, y_TY));
  product_task task{};
  task.out = y_TY.data;
  task.out_stride = y_TY.stride;
  task.out_panel_stride = panel_outputs;
  task.outputs = y_TY.columns;
  task.bias = bias_Y;
  task.add = add;
  run_product(x_TX, w_YX, task);
}

void cpu_device::linear_gated(rows_in x_TD, const packed_matrix& w_FD, activation act,
                              rows_out y_TF) {
  if (x_TD.rows == 0) return;
  require(checks::linear_gated(limits_, x_TD, w_FD, y_TF));
  product_task task{};
  task.out = y_TF.data;
  task.out_stride = y_TF.stride;
  task.out_panel_stride = panel_outputs;
  task.outputs = y_TF.columns;
  task.gated = true;
  task.act = act;
  run_product(x_TD, w_FD, task);
}

void cpu_device::moe(rows_in h_TD, const moe_routes& routes,
                     std::span<const expert_matrices> experts, activation act, rows_out x_TD) {
  require(checks::moe(limits_, h_TD, routes, experts, x_TD));
  const std::int64_t D = h_TD.columns;
  const auto weight_of = [&](std::int64_t row, std::int64_t expert) -> const float* {
    for (std::int64_t j = row * routes.count; j < (row + 1) * routes.count; ++j) {
      if (routes.ids[j] == expert) return routes.weights + j;
    }
    return nullptr;
  };
  // Expert by expert, so each row's sum is in order of expert id whoever stands beside it.
  for (std::int64_t e = 0; e < std::ssize(experts); ++e) {
    expert_rows_.clear();
    for (std::int64_t row = 0; row < h_TD.rows; ++row) {
      if (weight_of(row, e) != nullptr) expert_rows_.push_back(static_cast<std::int32_t>(row));
    }
    if (expert_rows_.empty()) continue;
    const expert_matrices& expert = experts[static_cast<std::size_t>(e)];
    const std::int64_t rows = std::ssize(expert_rows_);
    const std::int64_t F = expert.gate_up_FD.rows / 2;
    const rows_out inputs{floats_at(layout_.expert_inputs), rows, D};
    const rows_out hidden{floats_at(layout_.expert_hidden), rows, F};
    const rows_out outputs{floats_at(layout_.expert_outputs), rows, D};
    gather_rows(h_TD, expert_rows_, inputs);
    linear_gated(inputs, expert.gate_up_FD, act, hidden);
    linear(hidden, expert.down_DF, nullptr, false, outputs);
    for_rows(rows, [&](std::int64_t i) {
      const std::int64_t row = expert_rows_[static_cast<std::size_t>(i)];
      const float weight = *weight_of(row, e);
      for (std::int64_t c = 0; c < D; ++c) x_TD.row(row)[c] += weight * outputs.row(i)[c];
    });
  }
}

}  // namespace tandem::kernels::cpu
