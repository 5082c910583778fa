// What is done to each row by itself: norms, activations, routing, gathering, and plain arrays.
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/row_loads.cuh"
#include "kernels/op_checks.hpp"

#include <algorithm>

namespace tandem::kernels::cuda {
namespace {

__global__ void rms_norm_rows(rows_in x, const float* w, float eps, bool add, rows_out y) {
  __shared__ float parts[32];
  wait_for_previous();
  const float* const from = x.row(blockIdx.x);
  float* const to = y.row(blockIdx.x);
  const bool wide = quads(from, 0) && quads(to, 0) && quads(w, 0);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  const float squares = squares_of_warp(from, x.columns, wide, warp, warps);
  if (threadIdx.x % 32 == 0) parts[warp] = squares;
  __syncthreads();
  const float inverse = inverse_rms(parts, warps, x.columns, eps);
  for (std::int64_t i = 4 * threadIdx.x; i < x.columns; i += 4 * blockDim.x) {
    const float4 v = load4(from, i, x.columns, wide);
    const float4 g = load4(w, i, x.columns, wide);
    float4 out{normed(v.x, inverse, g.x), normed(v.y, inverse, g.y), normed(v.z, inverse, g.z),
               normed(v.w, inverse, g.w)};
    if (add) {
      const float4 old = load4(to, i, x.columns, wide);
      out = {old.x + out.x, old.y + out.y, old.z + out.z, old.w + out.w};
    }
    store4(to, i, x.columns, wide, out);
  }
}

__global__ void gathered_rows(rows_in x, const std::int32_t* rows, rows_out y) {
  wait_for_previous();
  const float* const from = x.row(rows[blockIdx.x]);
  float* const to = y.row(blockIdx.x);
  for (std::int64_t i = threadIdx.x; i < y.columns; i += blockDim.x) to[i] = from[i];
}

__global__ void scattered_rows(rows_in y, const std::int32_t* rows, rows_out x) {
  const float* const from = y.row(blockIdx.x);
  float* const to = x.row(rows[blockIdx.x]);
  for (std::int64_t i = threadIdx.x; i < y.columns; i += blockDim.x) to[i] += from[i];
}

// Column i of gate stands in group i / 16 of twice 16; up follows 16 later.
__device__ std::int64_t gate_column(std::int64_t i) { return i / 16 * 32 + i % 16; }

// A thread: four columns, which lie together in gate, in up and in y.
__global__ void activated_rows(rows_in gate_up, activation act, rows_out y) {
  const float* const from = gate_up.row(blockIdx.y);
  float* const to = y.row(blockIdx.y);
  const std::int64_t i = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * 4;
  if (i >= y.columns) return;
  const std::int64_t at = gate_column(i);
  const bool wide = quads(from, 0);
  const float4 gate = load4(from, at, gate_up.columns, wide);
  const float4 up = load4(from, at + 16, gate_up.columns, wide);
  store4(to, i, y.columns, quads(to, 0),
         {activated(gate.x, act) * up.x, activated(gate.y, act) * up.y,
          activated(gate.z, act) * up.z, activated(gate.w, act) * up.w});
}

__global__ void activated_rows_backward(rows_in dy, activation act, rows_out gate_up) {
  float* const row = gate_up.row(blockIdx.y);
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (2 * i >= gate_up.columns) return;
  const std::int64_t at = gate_column(i);
  if (i >= dy.columns) {
    row[at] = 0.0F;
    row[at + 16] = 0.0F;
    return;
  }
  const float d = dy.row(blockIdx.y)[i];
  const float gate = row[at];
  const float up = row[at + 16];
  row[at] = d * up * activated_slope(gate, act);
  row[at + 16] = d * activated(gate, act);
}

// One warp a row: the largest of what is left, `count` times; ties fall to the smaller id.
__global__ void routed_rows(rows_in logits, bool normalize, moe_routes routes) {
  const std::int64_t t = std::int64_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (t >= logits.rows) return;
  const float* const row = logits.row(t);
  const auto experts = static_cast<int>(logits.columns);
  std::int32_t* const ids = routes.ids + t * routes.count;
  float* const weights = routes.weights + t * routes.count;
  float bound = INFINITY;
  int bound_id = -1;
  float largest = 0.0F;
  float chosen = 0.0F;
  for (int j = 0; j < routes.count; ++j) {
    float best = -INFINITY;
    int best_id = experts;
    for (int e = lane; e < experts; e += 32) {
      const float v = row[e];
      const bool left = v < bound || (v == bound && e > bound_id);
      if (left && (v > best || (v == best && e < best_id))) {
        best = v;
        best_id = e;
      }
    }
    for (int step = 16; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(whole_warp, best, step);
      const int other_id = __shfl_xor_sync(whole_warp, best_id, step);
      if (other > best || (other == best && other_id < best_id)) {
        best = other;
        best_id = other_id;
      }
    }
    if (best_id >= experts) best_id = min(j, experts - 1);  // not a number: any expert, no crash
    bound = best;
    bound_id = best_id;
    if (j == 0) largest = best;
    const float weight = expf(best - largest);
    chosen += weight;
    if (lane == 0) {
      ids[j] = best_id;
      weights[j] = weight;
    }
  }
  float sum = chosen;
  if (!normalize) {
    sum = 0.0F;
    for (int e = 0; e < experts; ++e) sum += expf(row[e] - largest);
  }
  __syncwarp();
  for (int j = lane; j < routes.count; j += 32) weights[j] /= sum;
}

__global__ void scaled(float factor, rows_out x) {
  float* const row = x.row(blockIdx.x);
  for (std::int64_t i = threadIdx.x; i < x.columns; i += blockDim.x) row[i] *= factor;
}

__global__ void added(rows_in y, rows_out x) {
  const float* const from = y.row(blockIdx.x);
  float* const to = x.row(blockIdx.x);
  for (std::int64_t i = threadIdx.x; i < x.columns; i += blockDim.x) to[i] += from[i];
}

__global__ void added_arrays(const float* a, const float* b, std::int64_t count, float* into) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step)
    into[i] = a[i] + b[i];
}

}  // namespace

void cuda_device::rms_norm(rows_in x_TD, const float* w_D, float eps, rows_out y_TD) {
  require(checks::rms_norm(x_TD, y_TD));
  if (x_TD.rows == 0 || refilling()) return;
  launch_early(rms_norm_rows, dim3(static_cast<unsigned>(x_TD.rows)), threads_for(x_TD.columns), 0,
               stream_, x_TD, w_D, eps, false, y_TD);
  launched("rms_norm", x_TD.rows, x_TD.columns);
}

void cuda_device::add_rms_norm(rows_in h_TD, const float* w_D, float eps, rows_out x_TD) {
  require(checks::add_rms_norm(h_TD, x_TD));
  if (h_TD.rows == 0 || refilling()) return;
  launch_early(rms_norm_rows, dim3(static_cast<unsigned>(h_TD.rows)), threads_for(h_TD.columns), 0,
               stream_, h_TD, w_D, eps, true, x_TD);
  launched("add_rms_norm", h_TD.rows, h_TD.columns);
}

void cuda_device::gather_rows(rows_in x_TD, std::span<const std::int32_t> rows, rows_out y_BD) {
  require(checks::gather_rows(x_TD, rows, y_BD));
  if (rows.empty()) return;
  const std::int32_t* const there = upload(rows);
  if (refilling()) return;
  launch_early(gathered_rows, dim3(static_cast<unsigned>(y_BD.rows)), 256, 0, stream_, x_TD, there,
               y_BD);
  launched("gather_rows", y_BD.rows, y_BD.columns);
}

void cuda_device::scatter_add_rows(rows_in y_BD, std::span<const std::int32_t> rows,
                                   rows_out x_TD) {
  require(checks::scatter_add_rows(y_BD, rows, x_TD));
  if (rows.empty()) return;
  scattered_rows<<<static_cast<unsigned>(y_BD.rows), 256, 0, stream_>>>(y_BD, upload(rows), x_TD);
  launched("scatter_add_rows", y_BD.rows, y_BD.columns);
}

namespace {

// A grid over columns and rows; rows go by portions, a grid's y ends at 65,535.
template <class Launch>
void by_rows(std::int64_t rows, std::int64_t columns, const Launch& launch) {
  constexpr std::int64_t most = 65'535;
  for (std::int64_t first = 0; first < rows; first += most)
    launch(dim3(static_cast<unsigned>((columns + 255) / 256),
                static_cast<unsigned>(std::min(most, rows - first))),
           first, std::min(most, rows - first));
}

template <class T>
basic_rows<T> part(basic_rows<T> whole, std::int64_t first, std::int64_t count) {
  return {whole.row(first), count, whole.columns, whole.stride};
}

}  // namespace

void cuda_device::activate_gated(rows_in gate_up_T2F, activation act, rows_out y_TF) {
  require(checks::activate_gated(gate_up_T2F, y_TF));
  by_rows(y_TF.rows, (y_TF.columns + 3) / 4,
          [&](dim3 grid, std::int64_t first, std::int64_t count) {
            activated_rows<<<grid, 256, 0, stream_>>>(part(gate_up_T2F, first, count), act,
                                                      part(y_TF, first, count));
          });
  launched("activate_gated", y_TF.rows, y_TF.columns);
}

void cuda_device::activate_gated_backward(rows_in dy_TF, activation act, rows_out gate_up_T2F) {
  const std::int64_t padded = (dy_TF.columns + 15) / 16 * 16;
  require(checks::activate_gated_backward(dy_TF, gate_up_T2F));
  by_rows(dy_TF.rows, padded, [&](dim3 grid, std::int64_t first, std::int64_t count) {
    activated_rows_backward<<<grid, 256, 0, stream_>>>(part(dy_TF, first, count), act,
                                                       part(gate_up_T2F, first, count));
  });
  launched("activate_gated_backward", dy_TF.rows, dy_TF.columns);
}

void cuda_device::moe_route(rows_in logits_TE, bool normalize, const moe_routes& routes) {
  require(checks::moe_route(logits_TE, routes));
  if (logits_TE.rows == 0 || refilling()) return;
  constexpr unsigned warps = 4;
  routed_rows<<<(static_cast<unsigned>(logits_TE.rows) + warps - 1) / warps, 32 * warps, 0,
                stream_>>>(logits_TE, normalize, routes);
  launched("moe_route", logits_TE.rows, logits_TE.columns);
}

void cuda_device::scale_rows(float factor, rows_out x_TX) {
  if (x_TX.rows == 0) return;
  scaled<<<static_cast<unsigned>(x_TX.rows), 256, 0, stream_>>>(factor, x_TX);
  launched("scale_rows", x_TX.rows, x_TX.columns);
}

void cuda_device::add_rows(rows_in y_TX, rows_out x_TX) {
  require(checks::add_rows(y_TX, x_TX));
  if (x_TX.rows == 0) return;
  added<<<static_cast<unsigned>(x_TX.rows), 256, 0, stream_>>>(y_TX, x_TX);
  launched("add_rows", x_TX.rows, x_TX.columns);
}

void cuda_device::add_arrays(const float* a, const float* b, std::int64_t count, float* into) {
  if (count == 0) return;
  const auto blocks = std::min<std::int64_t>((count + 255) / 256, 16 * multiprocessors_);
  added_arrays<<<static_cast<unsigned>(blocks), 256, 0, stream_>>>(a, b, count, into);
  launched("add_arrays", 1, count);
}

}  // namespace tandem::kernels::cuda
