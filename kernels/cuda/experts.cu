// Mixtures of experts. Forward groups rows by expert on the device: a list of positions, expert by
// expert, and for all experts at once one product into it and one out of it, in the arithmetic of
// `linear`; then every row adds its experts' outputs in order of their ids. Backward takes one
// expert after the other, each with the ops that a dense layer uses.
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/products.cuh"
#include "kernels/cuda/rounding.cuh"
#include "kernels/op_checks.hpp"

#include <algorithm>

namespace tandem::kernels::cuda {
namespace {

constexpr int block_threads = 256;
// Rows that go through the experts at a time: bounds what lies between.
constexpr std::int64_t most_together = 1024;

std::size_t float_bytes(std::int64_t count) {
  return static_cast<std::size_t>(count) * sizeof(float) + 256;
}

// The sum over a block of whole warps, and each thread's sum of those before it.
struct counted {
  int before;
  int all;
};
__device__ counted count_in_block(bool mine, int* of_warp) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const unsigned votes = __ballot_sync(whole_warp, mine);
  if (lane == 0) of_warp[warp] = __popc(votes);
  __syncthreads();
  counted found{__popc(votes & ((1U << lane) - 1U)), 0};
  for (int w = 0; w < block_threads / 32; ++w) {
    if (w < warp) found.before += of_warp[w];
    found.all += of_warp[w];
  }
  __syncthreads();
  return found;
}

// One block: one expert. Positions of its rows begin behind those of the experts before it.
__global__ void group_rows(const std::int32_t* ids, int entries, int per_row, std::int32_t* first,
                           std::int32_t* row_of, std::int32_t* position_of) {
  __shared__ int of_warp[block_threads / 32];
  const int expert = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  int before = 0;
  for (int i = 0; i < entries; i += block_threads) {
    const bool earlier = i + thread < entries && ids[i + thread] < expert;
    before += count_in_block(earlier, of_warp).all;
  }
  int next = before;
  for (int i = 0; i < entries; i += block_threads) {
    const int entry = i + thread;
    const bool mine = entry < entries && ids[entry] == expert;
    const counted found = count_in_block(mine, of_warp);
    if (mine) {
      row_of[next + found.before] = entry / per_row;
      position_of[entry] = next + found.before;
    }
    next += found.all;
  }
  if (thread != 0) return;
  first[expert] = before;
  if (blockIdx.x + 1 == gridDim.x) first[expert + 1] = next;
}

// x[t] += sum_j weight_j * out[position of (t, j)], in order of expert id. Grid: columns, rows.
__global__ void add_experts(const float* out, const std::int32_t* position_of,
                            const std::int32_t* ids, const float* weights, int per_row,
                            rows_out x) {
  const std::int64_t column = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= x.columns) return;
  const std::int64_t row = blockIdx.y;
  const std::int64_t first = row * per_row;
  float sum = x.data[row * x.stride + column];
  std::int32_t last = -1;
  for (int n = 0; n < per_row; ++n) {
    std::int64_t next = first;
    std::int32_t id = INT32_MAX;
    for (std::int64_t j = first; j < first + per_row; ++j) {
      if (ids[j] > last && ids[j] < id) {
        id = ids[j];
        next = j;
      }
    }
    last = id;
    sum = __fadd_rn(sum, __fmul_rn(weights[next], out[position_of[next] * x.columns + column]));
  }
  x.data[row * x.stride + column] = sum;
}

// One block: one row of an expert. The route's weight scales the output, so its gradient is
// hidden . (down^T dy); what goes on is scaled by it. `at` is the row's place among the routes.
__global__ void weigh_gradients(const std::int32_t* at, const float* weights, rows_in hidden,
                                rows_out dhidden, rows_out dy, float* dweights) {
  __shared__ float room[32];
  const std::int64_t row = blockIdx.x;
  const float weight = weights[at[row]];
  float* const d = dhidden.data + row * dhidden.stride;
  float sum = 0.0F;
  for (std::int64_t i = threadIdx.x; i < hidden.columns; i += blockDim.x) {
    const float of_hidden = d[i];
    sum = __fmaf_rn(hidden.data[row * hidden.stride + i], of_hidden, sum);
    d[i] = __fmul_rn(weight, of_hidden);
  }
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) dweights[at[row]] = sum;
  float* const of_row = dy.data + row * dy.stride;
  for (std::int64_t i = threadIdx.x; i < dy.columns; i += blockDim.x)
    of_row[i] = __fmul_rn(weight, of_row[i]);
}

}  // namespace

std::size_t cuda_device::expert_workspace(const step_limits& limits) const {
  if (limits.experts == 0) return 0;
  const std::int64_t T = std::min(limits.rows, most_together);
  const std::int64_t positions = T * limits.experts_per_row;
  const std::int64_t D = limits.widest_input;
  const std::int64_t F = limits.expert_hidden;
  const std::size_t forward =
      float_bytes(limits.experts + 1) + 2 * float_bytes(positions) +
      static_cast<std::size_t>(prepared_bytes(T, D) + prepared_bytes(positions, F)) + 512 +
      float_bytes(positions * F) + float_bytes(positions * D);
  if (!limits.training) return forward;
  const std::size_t backward = 3 * float_bytes(limits.rows * D) + 2 * float_bytes(limits.rows * F) +
                               float_bytes(limits.rows * tiles_of(2 * F) * tile_outputs) +
                               std::max(product_workspace(limits), row_workspace(limits));
  return std::max(forward, backward);
}

void cuda_device::moe(rows_in h_TD, const moe_routes& routes,
                      std::span<const expert_matrices> experts, activation act, rows_out x_TD) {
  if (h_TD.rows == 0 || experts.empty() || routes.count == 0) return;
  require(checks::moe(limits_, h_TD, routes, experts, x_TD));
  const packed_matrix& into = experts[0].gate_up_FD;
  const packed_matrix& back = experts[0].down_DF;
  const std::int64_t D = h_TD.columns;
  const std::int64_t F = back.columns;
  const auto expert_count = static_cast<int>(experts.size());
  std::vector<const std::byte*> places;
  for (const expert_matrices& expert : experts) places.push_back(expert.gate_up_FD.data);
  for (const expert_matrices& expert : experts) places.push_back(expert.down_DF.data);
  const std::byte* const* const weights = upload(std::span<const std::byte* const>(places));
  if (refilling()) return;

  for (std::int64_t done = 0; done < h_TD.rows; done += most_together) {
    const std::int64_t T = std::min(most_together, h_TD.rows - done);
    const std::int64_t positions = T * routes.count;
    const rows_in h{h_TD.row(done), T, D, h_TD.stride};
    const std::int32_t* const ids = routes.ids + done * routes.count;
    auto* const first = scratch<std::int32_t>(expert_count + 1);
    auto* const row_of = scratch<std::int32_t>(positions);
    auto* const position_of = scratch<std::int32_t>(positions);
    group_rows<<<static_cast<unsigned>(expert_count), block_threads, 0, stream_>>>(
        ids, static_cast<int>(positions), routes.count, first, row_of, position_of);
    launched("moe", T, expert_count);

    const auto run = [&](const packed_matrix& w, const std::byte* const* places_of, rows_in x,
                         product p) {
      p.experts = places_of;
      p.first = first;
      p.x = x.data;
      p.x_stride = x.stride;
      p.x_aligned = loads_of_four(x);
      p.rows = static_cast<std::int32_t>(x.rows);
      if (w.format != weight_format::f32 && (has_blocks(w.format) || T > 8))
        p.prepared = prepare_rows(w.format, x,
                                  scratch<std::byte>(prepared_bytes(x.rows, x.columns)), stream_);
      if (T <= few_rows_of(w.format)) {
        // The kernel comes round for more: most experts have about so many.
        const auto typical = std::min(T, 2 * positions / expert_count + 1);
        few_rows_product(w.format, p, expert_count, static_cast<int>(typical), stream_);
      } else {
        many_rows_product(w.format, p, expert_count, static_cast<int>(T), multiprocessors_,
                          stream_);
      }
    };
    const rows_out hidden{scratch<float>(positions * F), positions, F};
    const rows_out out{scratch<float>(positions * D), positions, D};
    product gate_up = product_of(into);
    gate_up.x_row = row_of;
    gate_up.outputs = static_cast<std::int32_t>(F);
    gate_up.y = hidden.data;
    gate_up.y_stride = F;
    gate_up.gated = true;
    gate_up.act = act;
    run(into, weights, h, gate_up);
    product down = product_of(back);
    down.outputs = static_cast<std::int32_t>(D);
    down.y = out.data;
    down.y_stride = D;
    run(back, weights + expert_count, hidden, down);

    const dim3 grid(static_cast<unsigned>((D + block_threads - 1) / block_threads),
                    static_cast<unsigned>(T));
    add_experts<<<grid, block_threads, 0, stream_>>>(
        out.data, position_of, ids, routes.weights + done * routes.count, routes.count,
        {x_TD.row(done), T, D, x_TD.stride});
    launched("moe", T, D);
    end_scratch();
  }
}

void cuda_device::moe_backward(rows_in dy_TD, rows_in h_TD, const moe_routes& routes,
                               std::span<const expert_matrices> experts, activation act,
                               std::span<const row_segment> slots,
                               std::span<const expert_matrices> dexperts, rows_out dh_TD,
                               float* dweights) {
  require(checks::moe_backward(limits_, dy_TD, h_TD, routes, experts, slots, dexperts, dh_TD));
  if (h_TD.rows == 0) return;
  const std::int64_t T = h_TD.rows;
  const std::int64_t D = h_TD.columns;
  const auto width = static_cast<std::size_t>(D) * sizeof(float);
  check(cudaMemset2DAsync(dh_TD.data, static_cast<std::size_t>(dh_TD.stride) * sizeof(float), 0,
                          width, static_cast<std::size_t>(T), stream_),
        "moe_backward", T, D);
  // Who chose whom: the host splits the work, which waits for the device once.
  std::vector<std::int32_t> ids(static_cast<std::size_t>(T * routes.count));
  read(std::as_bytes(std::span<const std::int32_t>(routes.ids, ids.size())),
       reinterpret_cast<std::byte*>(ids.data()));

  // Ops within this one leave its part of the workspace alone.
  const auto nested = [this](auto&& op) {
    const std::size_t used = scratch_used_;
    op();
    scratch_used_ = used;
  };
  std::vector<std::int32_t> rows;
  std::vector<std::int32_t> places;
  std::vector<row_segment> expert_slots;
  for (std::size_t e = 0; e < experts.size(); ++e) {
    rows.clear();
    places.clear();
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] != static_cast<std::int32_t>(e)) continue;
      rows.push_back(static_cast<std::int32_t>(i) / routes.count);
      places.push_back(static_cast<std::int32_t>(i));
    }
    if (rows.empty()) continue;
    const std::int64_t count = std::ssize(rows);
    const packed_matrix gate_up_w = gated_as_linear(experts[e].gate_up_FD);
    const packed_matrix& down_w = experts[e].down_DF;
    const std::int64_t F = down_w.columns;
    const auto room = [&](std::int64_t columns) {
      return rows_out{scratch<float>(count * columns), count, columns};
    };
    const rows_out inputs = room(D);
    const rows_out dy = room(D);
    const rows_out dinputs = room(D);
    const rows_out gate_up = room(gate_up_w.rows);
    const rows_out hidden = room(F);
    const rows_out dhidden = room(F);
    nested([&] { gather_rows(h_TD, rows, inputs); });
    nested([&] { gather_rows(dy_TD, rows, dy); });
    nested([&] { linear(inputs, gate_up_w, nullptr, false, gate_up); });
    nested([&] { activate_gated(gate_up, act, hidden); });
    nested([&] { linear_backward_input(dy, down_w, false, dhidden); });
    weigh_gradients<<<static_cast<unsigned>(count), block_threads, 0, stream_>>>(
        ring_.upload(std::span<const std::int32_t>(places)), routes.weights, hidden, dhidden, dy,
        dweights);
    launched("moe_backward", count, F);
    nested([&] { activate_gated_backward(dhidden, act, gate_up); });
    if (!dexperts.empty()) {
      // A slot's rows of this expert are adjacent too: both are in order.
      expert_slots.clear();
      auto next = rows.begin();
      for (const row_segment& slot : slots) {
        const auto end = std::lower_bound(next, rows.end(), slot.first_row + slot.row_count);
        expert_slots.push_back({next - rows.begin(), end - next});
        next = end;
      }
      nested([&] { linear_backward_weights(dy, hidden, expert_slots, dexperts[e].down_DF); });
      nested([&] {
        linear_backward_weights(gate_up, inputs, expert_slots,
                                gated_as_linear(dexperts[e].gate_up_FD));
      });
    }
    nested([&] { linear_backward_input(gate_up, gate_up_w, false, dinputs); });
    nested([&] { scatter_add_rows(dinputs, rows, dh_TD); });
    end_scratch();
  }
}

}  // namespace tandem::kernels::cuda
