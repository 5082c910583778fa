// Products of activations with packed weights: which kernel, and with what. Both kernels of a
// format give a row the same bits.
#include "kernels/cuda/products.cuh"

#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/rounded_products.cuh"
#include "kernels/cuda/rounding.cuh"
#include "kernels/ensure.hpp"

#include <algorithm>

namespace tandem::kernels::cuda {

product product_of(const packed_matrix& w) {
  product p{};
  const std::int64_t groups = tile_groups(w.format, w.columns);
  p.weights = w.data;
  p.tile_stride = tile_bytes(w.format, w.columns);
  p.groups = static_cast<std::int32_t>(groups);
  p.chunk = chunk_groups(w.format, groups);
  p.columns = static_cast<std::int32_t>(w.columns);
  return p;
}

std::size_t cuda_device::product_workspace(const step_limits& limits) {
  const auto prepared = prepared_bytes(limits.rows, limits.widest_input);
  if (!limits.training || !limits.rounded) return static_cast<std::size_t>(prepared) + 256;
  const auto inputs = rounded_bytes(limits.rows, limits.widest_input);
  const auto outputs = rounded_bytes(limits.rows, limits.widest_output);
  return static_cast<std::size_t>(
             std::max({prepared, inputs + outputs, inputs + 2 * limits.largest_matrix,
                       outputs + 2 * limits.largest_matrix})) +
         512;
}

bool cuda_device::rounds() const { return limits_.training && limits_.rounded; }

rounded_rows cuda_device::as_rounded(rows_in x) {
  return round_rows(x, scratch<std::byte>(rounded_bytes(x.rows, x.columns)), stream_);
}
rounded_matrix cuda_device::as_rounded(const packed_matrix& w) {
  const std::int64_t rows = tiles_of(w.rows) * tile_outputs;
  return round_matrix(w, scratch<std::byte>(rounded_bytes(rows, w.columns)), stream_);
}

void cuda_device::run_product(rows_in x, const packed_matrix& w, product& p) {
  ensure(x.columns == w.columns, "inputs as wide as the weights");
  ensure(x.rows <= limits_.rows && x.columns <= limits_.widest_input, "a step within its limits");
  if (refilling()) return;
  p.x = x.data;
  p.x_stride = x.stride;
  p.x_aligned = loads_of_four(x);
  p.rows = static_cast<std::int32_t>(x.rows);
  // Eight rows of sixteen-bit products are rounded where they are used: a launch less.
  const bool prepare = w.format != weight_format::f32 && (has_blocks(w.format) || x.rows > 8);
  if (prepare)
    p.prepared =
        prepare_rows(w.format, x, scratch<std::byte>(prepared_bytes(x.rows, x.columns)), stream_);
  if (x.rows <= few_rows_of(w.format)) {
    few_rows_product(w.format, p, 1, p.rows, stream_);
  } else {
    many_rows_product(w.format, p, 1, p.rows, multiprocessors_, stream_);
  }
  end_scratch();
}

void cuda_device::linear(rows_in x_TX, const packed_matrix& w_YX, const float* bias_Y, bool add,
                         rows_out y_TY) {
  if (x_TX.rows == 0 || w_YX.rows == 0) return;
  ensure(x_TX.rows == y_TY.rows && w_YX.rows == y_TY.columns, "outputs as the weights' rows");
  if (rounds() && w_YX.format == weight_format::f32) {
    ensure(x_TX.rows <= limits_.rows && x_TX.columns == w_YX.columns, "a step within its limits");
    rounded_product(as_rounded(x_TX), as_rounded(w_YX), bias_Y, add, y_TY, stream_);
    end_scratch();
    return;
  }
  product p = product_of(w_YX);
  p.outputs = static_cast<std::int32_t>(y_TY.columns);
  p.y = y_TY.data;
  p.y_stride = y_TY.stride;
  p.bias = bias_Y;
  p.add = add;
  run_product(x_TX, w_YX, p);
}

void cuda_device::linear_gated(rows_in x_TD, const packed_matrix& w_FD, activation act,
                               rows_out y_TF) {
  if (x_TD.rows == 0 || w_FD.rows == 0) return;
  ensure(x_TD.rows == y_TF.rows && w_FD.rows == 2 * y_TF.columns, "a gate and an up per output");
  product p = product_of(w_FD);
  p.outputs = static_cast<std::int32_t>(y_TF.columns);
  p.y = y_TF.data;
  p.y_stride = y_TF.stride;
  p.gated = true;
  p.act = act;
  run_product(x_TD, w_FD, p);
}

}  // namespace tandem::kernels::cuda
