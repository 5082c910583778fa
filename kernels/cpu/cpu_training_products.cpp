// Backward of products: both are products again, of operands laid out anew for the kernels that
// forward uses. Sums over rows follow the slot tree, made tile by tile inside the kernel.
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/pack.hpp"
#include "kernels/op_checks.hpp"

#include <algorithm>

namespace tandem::kernels::cpu {

packed_matrix cpu_device::rows_of(const packed_matrix& whole, std::int64_t first_row,
                                  std::int64_t rows) const {
  require(checks::rows_of(whole, first_row, rows));
  const panel_layout layout = panel_layout::of(whole.format, whole.rows, whole.columns);
  return {whole.format, rows, whole.columns,
          whole.data + first_row / panel_outputs * layout.panel_bytes};
}

packed_matrix cpu_device::gated_as_linear(const packed_matrix& w_FD) const {
  require(checks::gated_as_linear(w_FD));
  const panel_layout layout = panel_layout::of(w_FD.format, w_FD.rows, w_FD.columns);
  return {w_FD.format, layout.panels * panel_outputs, w_FD.columns, w_FD.data};
}

void cpu_device::unpack_gated_row(const packed_matrix& source, bool up, std::int64_t row,
                                  float* out) const {
  require(checks::unpack_gated_row(source, row));
  unpack(source, {2 * (row / panel_outputs) + (up ? 1 : 0), static_cast<int>(row % panel_outputs)},
         out);
}

// Outputs are the inner dimension: per piece of them and sixteen columns of dx, the weights turned
// over are a panel that the float kernel knows. Each is turned once and serves all rows.
void cpu_device::linear_backward_input(rows_in dy_TY, const packed_matrix& w_YX, bool add,
                                       rows_out dx_TX) {
  if (dy_TY.rows == 0) return;
  require(checks::linear_backward_input(limits_, dy_TY, w_YX, dx_TX));
  const panel_layout layout = panel_layout::of(w_YX.format, w_YX.rows, w_YX.columns);
  const std::int64_t Y = w_YX.rows;
  const std::int64_t pieces = (Y + backward_input_chunk - 1) / backward_input_chunk;
  const std::int64_t piece_rows =
      ((Y + pieces - 1) / pieces + panel_outputs - 1) / panel_outputs * panel_outputs;
  const std::int64_t column_pairs = (w_YX.columns + 2 * panel_outputs - 1) / (2 * panel_outputs);
  float* activations = floats_at(layout_.activations);
  plan_strips(dy_TY.rows, table_.float_strip_rows);

  team_.run([&](int thread) {
    float* turned = floats_at(layout_.panels +
                              static_cast<std::size_t>(thread) * layout_.panel_bytes_per_thread);
    const range strips = part_of(std::ssize(strips_), thread, team_.size());
    const range pairs = part_of(column_pairs, thread, team_.size());
    for (std::int64_t first = 0; first < Y; first += piece_rows) {
      const std::int64_t K = std::min(piece_rows, Y - first);
      for (std::int64_t s = strips.begin; s < strips.end; ++s) {
        const strip& at = strips_[static_cast<std::size_t>(s)];
        table_.interleave_strip(dy_TY.row(at.first_row) + first, dy_TY.stride, at.rows, K,
                                activations + at.first_row * K);
      }
      team_.barrier();
      const std::int64_t panels = (K + panel_outputs - 1) / panel_outputs;
      const std::int64_t turned_floats = panels * panel_outputs * panel_outputs;
      product_task task{};
      task.format = weight_format::f32;
      task.weights = reinterpret_cast<const std::byte*>(turned);
      task.panel_bytes = turned_floats * std::int64_t{sizeof(float)};
      task.columns = K;
      task.activations = reinterpret_cast<const std::byte*>(activations);
      task.strips = strips_.data();
      task.strip_count = std::ssize(strips_);
      task.row_bytes = K * std::int64_t{sizeof(float)};
      task.out_stride = dx_TX.stride;
      task.out_panel_stride = panel_outputs;
      task.add = add || first > 0;
      for (std::int64_t pair = pairs.begin; pair < pairs.end; ++pair) {
        const std::int64_t column = pair * 2 * panel_outputs;
        task.out = dx_TX.data + column;
        task.outputs = std::min<std::int64_t>(2 * panel_outputs, dx_TX.columns - column);
        const std::int64_t halves = (task.outputs + panel_outputs - 1) / panel_outputs;
        for (std::int64_t half = 0; half < halves; ++half) {
          for (std::int64_t p = 0; p < panels; ++p) {
            const std::byte* panel = w_YX.data + (first / panel_outputs + p) * layout.panel_bytes;
            table_.training->turn_weights(
                w_YX.format, panel, column + half * panel_outputs, w_YX.columns,
                turned + half * turned_floats + p * panel_outputs * panel_outputs);
          }
        }
        table_.product(task, 0, halves);
      }
      team_.barrier();
    }
  });
}

// Rows are the inner dimension: strips of x's columns against panels of dy's, both taken as they
// lie, and the tile of sums is a piece of the packed gradient.
void cpu_device::linear_backward_weights(rows_in dy_TY, rows_in x_TX,
                                         std::span<const row_segment> slots,
                                         const packed_matrix& dw_YX) {
  require(checks::linear_backward_weights(limits_, dy_TY, x_TX, slots, dw_YX));
  const std::int64_t T = dy_TY.rows;
  if (T == 0 || slots.empty()) return;
  const panel_layout layout = panel_layout::of(dw_YX.format, dw_YX.rows, dw_YX.columns);
  float* columns = floats_at(layout_.activations);
  plan_strips(x_TX.columns, table_.float_strip_rows);
  const std::int64_t panels = (dw_YX.rows + panel_outputs - 1) / panel_outputs;

  team_.run([&](int thread) {
    const range strips = part_of(std::ssize(strips_), thread, team_.size());
    // Some rows at a time: what a strip leaves of a line is still near when the next one comes.
    constexpr std::int64_t rows_near = 64;
    for (std::int64_t t = 0; t < T; t += rows_near) {
      for (std::int64_t s = strips.begin; s < strips.end; ++s) {
        const strip& at = strips_[static_cast<std::size_t>(s)];
        table_.training->copy_columns(x_TX.row(t) + at.first_row, x_TX.stride,
                                      std::min(rows_near, T - t), at.rows, at.rows,
                                      columns + at.first_row * T + t * at.rows);
      }
    }
    team_.barrier();
    float* outputs = floats_at(layout_.panels +
                               static_cast<std::size_t>(thread) * layout_.panel_bytes_per_thread);
    product_task task{};
    task.format = weight_format::f32;
    task.weights = reinterpret_cast<const std::byte*>(outputs);
    task.panel_bytes = T * panel_outputs * std::int64_t{sizeof(float)};
    task.columns = T;
    task.activations = reinterpret_cast<const std::byte*>(columns);
    task.strips = strips_.data();
    task.strip_count = std::ssize(strips_);
    task.row_bytes = T * std::int64_t{sizeof(float)};
    task.out_stride = panel_outputs;
    task.out_panel_stride = layout.panel_bytes / std::int64_t{sizeof(float)};
    task.add = true;
    task.segments = slots.data();
    task.segment_count = std::ssize(slots);
    const range pairs = part_of((panels + 1) / 2, thread, team_.size());
    for (std::int64_t panel = 2 * pairs.begin; panel < std::min(2 * pairs.end, panels);
         panel += 2) {
      const std::int64_t count = std::min<std::int64_t>(2, panels - panel);
      for (std::int64_t n = 0; n < count; ++n) {
        const std::int64_t column = (panel + n) * panel_outputs;
        table_.training->copy_columns(
            dy_TY.data + column, dy_TY.stride, T,
            static_cast<int>(std::min<std::int64_t>(panel_outputs, dy_TY.columns - column)),
            panel_outputs, outputs + n * T * panel_outputs);
      }
      // The lanes behind the last output get zeros added.
      task.outputs = count * panel_outputs;
      task.out = reinterpret_cast<float*>(dw_YX.data + panel * layout.panel_bytes);
      table_.product(task, 0, count);
    }
  });
}

void cpu_device::sum_columns(column_sum_task& task, std::int64_t columns,
                             std::span<const row_segment> slots) {
  if (slots.empty()) return;
  task.segments = slots.data();
  task.segment_count = std::ssize(slots);
  constexpr std::int64_t unit = 64;
  const std::int64_t units = (columns + unit - 1) / unit;
  for_ranges(units, units > 1, [&](std::int64_t begin, std::int64_t end) {
    table_.training->column_sums(task, begin * unit, std::min(end * unit, columns));
  });
}

void cpu_device::bias_backward(rows_in dy_TY, std::span<const row_segment> slots, float* db_Y) {
  require(checks::bias_backward(limits_, dy_TY, slots));
  column_sum_task task{};
  task.a = dy_TY.data;
  task.a_stride = dy_TY.stride;
  task.heads = 1;
  task.into = db_Y;
  sum_columns(task, dy_TY.columns, slots);
}

}  // namespace tandem::kernels::cpu
