// Products of activations with packed weights: which kernel, and with what. Both kernels of a
// format give a row the same bits.
#include "kernels/cuda/products.cuh"

#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/hopper_products.cuh"
#include "kernels/cuda/hopper_rows.cuh"
#include "kernels/cuda/rounded_products.cuh"
#include "kernels/cuda/rounding.cuh"
#include "kernels/op_checks.hpp"

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

std::size_t cuda_device::product_workspace(const step_limits& limits) const {
  const auto prepared = prepared_bytes(limits.rows, limits.widest_input);
  if (!limits.training || !limits.rounded) return static_cast<std::size_t>(prepared) + 256;
  const auto inputs = rounded_bytes(limits.rows, limits.widest_input);
  const auto outputs = rounded_bytes(limits.rows, limits.widest_output);
  return static_cast<std::size_t>(
             std::max({prepared, inputs + outputs, inputs + 2 * limits.largest_matrix,
                       outputs + 2 * limits.largest_matrix})) +
         (wgmma_ ? hopper_slot_room(multiprocessors_) : 0) + 1024;
}

bool cuda_device::rounds() const { return limits_.training && limits_.rounded; }

rounded_rows cuda_device::as_rounded(rows_in x) {
  const bool held = x.data == held_.data && x.rows == held_.rows && x.columns == held_.columns &&
                    x.stride == held_.stride && x.columns <= limits_.widest_output;
  if (held && held_rounded_) return {held_room_, x.rows, whole_32(x.columns)};
  held_rounded_ = held_rounded_ || held;
  if (held) return round_rows(x, held_room_, stream_);
  return round_rows(x, scratch<std::byte>(rounded_bytes(x.rows, x.columns)), stream_);
}
namespace {
std::int64_t rounded_matrix_bytes(const packed_matrix& w) {
  return rounded_bytes(tiles_of(w.rows) * tile_outputs, w.columns);
}
}  // namespace

rounded_matrix cuda_device::as_rounded(const packed_matrix& w) {
  return round_matrix(w, scratch<std::byte>(rounded_matrix_bytes(w)), stream_);
}
rounded_rows cuda_device::as_rounded_rows(const packed_matrix& w) {
  return round_matrix_rows(w, scratch<std::byte>(rounded_matrix_bytes(w)), stream_);
}

// Seen on an H200: more than 64 rows always gain by it; up to as many where the weights are many,
// and few ones where there are even more and their tiles alone would leave half of the chip idle.
bool cuda_device::on_hopper(std::int64_t rows, const packed_matrix& w) const {
  if (!wgmma_ || !has_sixteen_bits(w.format)) return false;
  const auto tiles = tiles_of(w.rows);
  const auto mebibytes = (tiles * tile_bytes(w.format, w.columns)) >> 20;
  if (rows > 64) return true;
  if (rows > 32) return mebibytes >= 48;
  return mebibytes >= 96 && tiles / 2 <= multiprocessors_;
}

// Whether a product of sixteen-bit weights norms its rows itself: on Hopper on the way to it, else
// every block, which pays where rows are short.
bool cuda_device::norms_rows(const rows_in& x, const float* norm, const packed_matrix& w) const {
  if (on_hopper(x.rows, w)) return true;
  constexpr std::int64_t most_numbers = 2048;
  return x.rows <= most_normed_rows && x.rows * x.columns <= most_numbers &&
         has_sixteen_bits(w.format) && loads_of_four(x) &&
         reinterpret_cast<std::uintptr_t>(norm) % 16 == 0;
}

void cuda_device::run_product(rows_in x, const packed_matrix& w, product& p) {
  if (refilling()) return;
  p.x = x.data;
  p.x_stride = x.stride;
  p.x_aligned = loads_of_four(x);
  p.rows = static_cast<std::int32_t>(x.rows);
  // Eight rows of sixteen-bit and fp8 products are rounded where they are used: a launch less.
  const bool hopper = on_hopper(x.rows, w);
  const bool prepare =
      !hopper && w.format != weight_format::f32 && (has_blocks(w.format) || x.rows > 8);
  if (prepare)
    p.prepared =
        prepare_rows(w.format, x, scratch<std::byte>(prepared_bytes(x.rows, x.columns)), stream_);
  if (hopper) {
    hopper_rows_product(w.format, x, p, scratch<std::byte>(prepared_bytes(x.rows, x.columns)),
                        multiprocessors_, stream_);
  } else if (x.rows <= few_rows_of(w.format)) {
    few_rows_product(w.format, p, 1, p.rows, stream_);
  } else {
    many_rows_product(w.format, p, 1, p.rows, multiprocessors_, stream_);
  }
  end_scratch();
}

namespace {

product linear_product(const packed_matrix& w, const float* bias, bool add, rows_out y) {
  product p = product_of(w);
  p.outputs = static_cast<std::int32_t>(y.columns);
  p.y = y.data;
  p.y_stride = y.stride;
  p.bias = bias;
  p.add = add;
  return p;
}

product gated_product(const packed_matrix& w, activation act, rows_out y) {
  product p = linear_product(w, nullptr, false, y);
  p.gated = true;
  p.act = act;
  return p;
}

}  // namespace

void cuda_device::linear(rows_in x_TX, const packed_matrix& w_YX, const float* bias_Y, bool add,
                         rows_out y_TY) {
  if (x_TX.rows == 0 || w_YX.rows == 0) return;
  require(checks::linear(limits_, x_TX, w_YX, y_TY));
  if (rounds() && w_YX.format == weight_format::f32) {
    if (wgmma_)
      hopper_product(as_rounded(x_TX), as_rounded_rows(w_YX), bias_Y, add, y_TY, multiprocessors_,
                     stream_);
    else
      rounded_product(as_rounded(x_TX), as_rounded(w_YX), bias_Y, add, y_TY, stream_);
    end_scratch();
    return;
  }
  product p = linear_product(w_YX, bias_Y, add, y_TY);
  run_product(x_TX, w_YX, p);
}

void cuda_device::linear_gated(rows_in x_TD, const packed_matrix& w_FD, activation act,
                               rows_out y_TF) {
  if (x_TD.rows == 0 || w_FD.rows == 0) return;
  require(checks::linear_gated(limits_, x_TD, w_FD, y_TF));
  product p = gated_product(w_FD, act, y_TF);
  run_product(x_TD, w_FD, p);
}

void cuda_device::norm_linear(rows_in x_TD, const float* norm_D, float eps,
                              const packed_matrix& w_YD, const float* bias_Y, rows_out h_TD,
                              rows_out y_TY) {
  if (x_TD.rows == 0 || !norms_rows(x_TD, norm_D, w_YD))
    return backend::norm_linear(x_TD, norm_D, eps, w_YD, bias_Y, h_TD, y_TY);
  require(checks::linear(limits_, x_TD, w_YD, y_TY));
  product p = linear_product(w_YD, bias_Y, false, y_TY);
  p.norm = norm_D;
  p.norm_eps = eps;
  run_product(x_TD, w_YD, p);
}

void cuda_device::norm_linear_gated(rows_in x_TD, const float* norm_D, float eps,
                                    const packed_matrix& w_FD, activation act, rows_out h_TD,
                                    rows_out y_TF) {
  if (x_TD.rows == 0 || !norms_rows(x_TD, norm_D, w_FD))
    return backend::norm_linear_gated(x_TD, norm_D, eps, w_FD, act, h_TD, y_TF);
  require(checks::linear_gated(limits_, x_TD, w_FD, y_TF));
  product p = gated_product(w_FD, act, y_TF);
  p.norm = norm_D;
  p.norm_eps = eps;
  run_product(x_TD, w_FD, p);
}

}  // namespace tandem::kernels::cuda
