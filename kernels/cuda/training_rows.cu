// Training's row by row ops, the loss, and the optimizer.
#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/draw_room.hpp"
#include "kernels/cuda/row_loads.cuh"
#include "kernels/op_checks.hpp"

#include <algorithm>
#include <cmath>

namespace tandem::kernels::cuda {
namespace {

// inverse[t] = 1 / sqrt(mean(x^2) + eps)
__global__ void inverse_rms_rows(rows_in x, float eps, float* inverse) {
  __shared__ float room[32];
  const float* const row = x.row(blockIdx.x);
  const bool wide = quads(row, 0);
  float squares = 0.0F;
  for (std::int64_t i = 4 * threadIdx.x; i < x.columns; i += 4 * blockDim.x) {
    const float4 v = load4(row, i, x.columns, wide);
    squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  const float mean = block_sum(squares, room) / static_cast<float>(x.columns);
  if (threadIdx.x == 0) inverse[blockIdx.x] = 1.0F / sqrtf(mean + eps);
}

// A term of a norm's weight gradient.
struct norm_term {
  rows_in dy;
  rows_in x;
  const float* inverse;
  __device__ float operator()(std::int64_t row, std::int64_t column) const {
    return __fmul_rn(__fmul_rn(dy.row(row)[column], x.row(row)[column]), inverse[row]);
  }
};

__global__ void rms_norm_rows_backward(rows_in dy, rows_in x, const float* w, const float* inverse,
                                       bool add, rows_out dx) {
  __shared__ float room[32];
  const float* const d = dy.row(blockIdx.x);
  const float* const from = x.row(blockIdx.x);
  float* const to = dx.row(blockIdx.x);
  float along = 0.0F;
  for (std::int64_t i = threadIdx.x; i < x.columns; i += blockDim.x) along += d[i] * w[i] * from[i];
  const float scale = inverse[blockIdx.x];
  const float factor = block_sum(along, room) * scale * scale / static_cast<float>(x.columns);
  for (std::int64_t i = threadIdx.x; i < x.columns; i += blockDim.x) {
    const float one = scale * (d[i] * w[i] - from[i] * factor);
    to[i] = add ? to[i] + one : one;
  }
}

struct best_logit {
  float value;
  std::int64_t column;
};
__device__ best_logit better(best_logit a, best_logit b) {
  return b.value > a.value || (b.value == a.value && b.column < a.column) ? b : a;
}

__global__ void observed_rows(rows_in logits, std::int32_t first_id, cross_entropy_row* rows) {
  __shared__ float room[32];
  __shared__ best_logit bests[32];
  const float* const row = logits.row(blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  best_logit best{-INFINITY, logits.columns};
  for (std::int64_t i = threadIdx.x; i < logits.columns; i += blockDim.x)
    if (row[i] > best.value) best = {row[i], i};
  for (int step = 16; step > 0; step /= 2)
    best = better(best, {__shfl_xor_sync(whole_warp, best.value, step),
                         __shfl_xor_sync(whole_warp, best.column, step)});
  if (lane == 0) bests[warp] = best;
  __syncthreads();
  for (int other = 0; other < static_cast<int>(blockDim.x / 32); ++other)
    best = better(best, bests[other]);
  if (best.column == logits.columns) best.column = 0;  // all are minus infinity or no numbers
  cross_entropy_row seen = rows[blockIdx.x];
  float maximum = first_id == 0 ? -INFINITY : seen.maximum;
  float sum = first_id == 0 ? 0.0F : seen.sum;
  if (first_id == 0 || best.value > maximum) {
    seen.best = first_id + static_cast<std::int32_t>(best.column);
    if (first_id != 0) sum *= expf(maximum - best.value);
    maximum = best.value;
  }
  float own = 0.0F;
  for (std::int64_t i = threadIdx.x; i < logits.columns; i += blockDim.x)
    own += expf(row[i] - maximum);
  sum += block_sum(own, room);
  if (threadIdx.x != 0) return;
  seen.maximum = maximum;
  seen.sum = sum;
  const std::int64_t target = std::int64_t{seen.target} - first_id;
  if (target >= 0 && target < logits.columns) seen.target_logit = row[target];
  rows[blockIdx.x] = seen;
}

__global__ void cross_entropy_rows_backward(rows_out logits, std::int32_t first_id,
                                            const cross_entropy_row* rows, const float* scales) {
  float* const row = logits.row(blockIdx.x);
  const cross_entropy_row seen = rows[blockIdx.x];
  const float inverse = 1.0F / seen.sum;
  const float scale = scales[blockIdx.x];
  for (std::int64_t i = threadIdx.x; i < logits.columns; i += blockDim.x) {
    const float one = first_id + i == seen.target ? 1.0F : 0.0F;
    row[i] = scale * (expf(row[i] - seen.maximum) * inverse - one);
  }
}

// softmax's derivative over the chosen experts, or over all of them where the weights were not
// renormalized; a thread a row: experts are few.
__global__ void routed_rows_backward(rows_in logits, bool normalize, moe_routes routes,
                                     const float* dweights, rows_out dlogits) {
  const std::int64_t t = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (t >= logits.rows) return;
  const std::int32_t* const ids = routes.ids + t * routes.count;
  const float* const weights = routes.weights + t * routes.count;
  const float* const d = dweights + t * routes.count;
  float* const to = dlogits.row(t);
  float along = 0.0F;
  for (int j = 0; j < routes.count; ++j) along += weights[j] * d[j];
  const float* const row = logits.row(t);
  if (normalize) {
    for (std::int64_t e = 0; e < logits.columns; ++e) to[e] = 0.0F;
  } else {
    const float largest = row[ids[0]];
    float sum = 0.0F;
    for (std::int64_t e = 0; e < logits.columns; ++e) sum += expf(row[e] - largest);
    for (std::int64_t e = 0; e < logits.columns; ++e)
      to[e] = -(expf(row[e] - largest) / sum) * along;
  }
  for (int j = 0; j < routes.count; ++j) to[ids[j]] = weights[j] * (d[j] - along);
}

constexpr std::int64_t square_piece = 65'536;
constexpr std::size_t square_parts_together = 4096;  // of one launch

// One block a piece; the pieces' sums are added in order on the host.
// At most square_piece numbers of one array.
struct square_part {
  const float* x;
  std::int64_t count;
};

__global__ void squares_of_parts(const square_part* parts, double* sums) {
  __shared__ double room[32];
  const square_part part = parts[blockIdx.x];
  const bool wide = quads(part.x, 0);
  double sum = 0.0;
  const auto add = [&sum](float x) {
    const auto v = static_cast<double>(x);
    sum = __fma_rn(v, v, sum);
  };
#pragma unroll 4
  for (std::int64_t i = 4 * threadIdx.x; i < part.count; i += 4 * blockDim.x) {
    const float4 v = load4(part.x, i, part.count, wide);
    add(v.x);
    add(v.y);
    add(v.z);
    add(v.w);
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(whole_warp, sum, step);
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  double all = 0.0;
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) all += room[warp];
  sums[blockIdx.x] = all;
}

struct adamw_task {
  float gradient_scale;
  float keep;
  float beta1_rest;
  float beta2;
  float beta2_rest;
  float inverse_root;
  float eps;
  float step_size;
};

__host__ __device__ inline void adamw_one(const adamw_task& task, float gradient, float& w,
                                          float& m, float& v) {
  const float g = gradient * task.gradient_scale;
  m += task.beta1_rest * (g - m);
  v = v * task.beta2 + task.beta2_rest * (g * g);
  const float root = sqrtf(v) * task.inverse_root + task.eps;
  w = w * task.keep - task.step_size * (m / root);
}

__global__ void adamw_all(adamw_task task, const float* gradient, std::int64_t count, float* w,
                          float* m, float* v) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step)
    adamw_one(task, gradient[i], w[i], m[i], v[i]);
}

__global__ void adamw_quads(adamw_task task, const float4* gradient, std::int64_t count, float4* w,
                            float4* m, float4* v) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    const float4 g = gradient[i];
    float4 w4 = w[i];
    float4 m4 = m[i];
    float4 v4 = v[i];
    adamw_one(task, g.x, w4.x, m4.x, v4.x);
    adamw_one(task, g.y, w4.y, m4.y, v4.y);
    adamw_one(task, g.z, w4.z, m4.z, v4.z);
    adamw_one(task, g.w, w4.w, m4.w, v4.w);
    w[i] = w4;
    m[i] = m4;
    v[i] = v4;
  }
}

}  // namespace

std::size_t cuda_device::row_workspace(const step_limits& limits) {
  // Factors of the norms, what is known of each row's cross entropy, and sums of squares; or what
  // draws want.
  if (!limits.training) return draw_workspace();
  const auto rows = static_cast<std::size_t>(limits.rows);
  return std::max(draw_workspace(),
                  rows * sizeof(float) + rows * sizeof(cross_entropy_row) +
                      static_cast<std::size_t>(column_sum_floats(limits)) * sizeof(float) +
                      square_parts_together * sizeof(double) + 4 * 256);
}

float* cuda_device::column_sum_room(std::int64_t slots, std::int64_t columns) {
  if (slots * columns > column_sum_floats(limits_)) return nullptr;
  return scratch<float>(slots * columns);
}

void cuda_device::rms_norm_backward(rows_in dy_TD, rows_in x_TD, const float* w_D, float eps,
                                    std::span<const row_segment> slots, bool add, rows_out dx_TD,
                                    float* dw_D) {
  require(checks::rms_norm_backward(limits_, dy_TD, x_TD, slots, dx_TD));
  if (x_TD.rows == 0) return;
  const auto rows = static_cast<unsigned>(x_TD.rows);
  const unsigned threads = threads_for(x_TD.columns);
  float* const inverse = scratch<float>(x_TD.rows);
  inverse_rms_rows<<<rows, threads, 0, stream_>>>(x_TD, eps, inverse);
  // dw first: dx may take the place of dy.
  if (dw_D != nullptr)
    add_column_sums(norm_term{dy_TD, x_TD, inverse}, x_TD.columns, upload(slots), std::ssize(slots),
                    column_sum_room(std::ssize(slots), x_TD.columns), dw_D, stream_);
  rms_norm_rows_backward<<<rows, threads, 0, stream_>>>(dy_TD, x_TD, w_D, inverse, add, dx_TD);
  launched("rms_norm_backward", x_TD.rows, x_TD.columns);
  end_scratch();
}

void cuda_device::cross_entropy_observe(rows_in logits_BC, std::int32_t first_id,
                                        std::span<cross_entropy_row> rows_B) {
  require(checks::cross_entropy_observe(logits_BC, first_id, rows_B));
  if (rows_B.empty()) return;
  auto* const rows = scratch<cross_entropy_row>(logits_BC.rows);
  const auto bytes = rows_B.size_bytes();
  check(cudaMemcpyAsync(rows, rows_B.data(), bytes, cudaMemcpyHostToDevice, stream_),
        "cross_entropy_observe", logits_BC.rows, logits_BC.columns);
  observed_rows<<<static_cast<unsigned>(logits_BC.rows), 256, 0, stream_>>>(logits_BC, first_id,
                                                                            rows);
  launched("cross_entropy_observe", logits_BC.rows, logits_BC.columns);
  read(std::as_bytes(std::span(rows, rows_B.size())), reinterpret_cast<std::byte*>(rows_B.data()));
  end_scratch();
}

void cuda_device::cross_entropy_backward(rows_out logits_BC, std::int32_t first_id,
                                         std::span<const cross_entropy_row> rows_B,
                                         std::span<const float> scale_B) {
  require(checks::cross_entropy_backward(logits_BC, first_id, rows_B, scale_B));
  if (rows_B.empty()) return;
  cross_entropy_rows_backward<<<static_cast<unsigned>(logits_BC.rows), 256, 0, stream_>>>(
      logits_BC, first_id, upload(rows_B), upload(scale_B));
  launched("cross_entropy_backward", logits_BC.rows, logits_BC.columns);
}

void cuda_device::moe_route_backward(rows_in logits_TE, bool normalize, const moe_routes& routes,
                                     const float* dweights, rows_out dlogits_TE) {
  require(checks::moe_route_backward(logits_TE, routes, dlogits_TE));
  if (logits_TE.rows == 0) return;
  routed_rows_backward<<<static_cast<unsigned>((logits_TE.rows + 127) / 128), 128, 0, stream_>>>(
      logits_TE, normalize, routes, dweights, dlogits_TE);
  launched("moe_route_backward", logits_TE.rows, logits_TE.columns);
}

double cuda_device::sum_of_squares(const float* x, std::int64_t count) {
  const std::span<const float> array(x, static_cast<std::size_t>(count));
  double sum = 0.0;
  sums_of_squares({&array, 1}, {&sum, 1});
  return sum;
}

void cuda_device::sums_of_squares(std::span<const std::span<const float>> arrays,
                                  std::span<double> sums) {
  require(checks::sums_of_squares(arrays, sums));
  std::vector<square_part> parts;
  std::vector<std::size_t> array_of;
  for (std::size_t a = 0; a < arrays.size(); ++a) {
    sums[a] = 0.0;
    for (std::int64_t first = 0; first < std::ssize(arrays[a]); first += square_piece) {
      parts.push_back(
          {arrays[a].data() + first, std::min(square_piece, std::ssize(arrays[a]) - first)});
      array_of.push_back(a);
    }
  }
  double* const there = scratch<double>(square_parts_together);
  std::vector<double> here(std::min<std::size_t>(parts.size(), square_parts_together));
  for (std::size_t first = 0; first < parts.size(); first += square_parts_together) {
    const auto some = std::min<std::size_t>(parts.size() - first, square_parts_together);
    squares_of_parts<<<static_cast<unsigned>(some), 256, 0, stream_>>>(
        ring_.upload(std::span<const square_part>(parts).subspan(first, some)), there);
    launched("sums_of_squares", 1, static_cast<std::int64_t>(some) * square_piece);
    read(std::as_bytes(std::span(there, some)), reinterpret_cast<std::byte*>(here.data()));
    for (std::size_t p = 0; p < some; ++p) sums[array_of[first + p]] += here[p];
  }
  end_scratch();
}

void cuda_device::adamw(const adamw_step& how, const float* gradient, std::int64_t count, float* w,
                        float* m, float* v) {
  require(checks::adamw(how, count));
  if (count == 0) return;
  const auto step = static_cast<double>(how.step);
  const double correction1 = 1.0 - std::pow(double{how.beta1}, step);
  const double correction2 = 1.0 - std::pow(double{how.beta2}, step);
  const adamw_task task{
      .gradient_scale = how.gradient_scale,
      .keep = static_cast<float>(1.0 - double{how.learning_rate} * double{how.weight_decay}),
      .beta1_rest = static_cast<float>(1.0 - double{how.beta1}),
      .beta2 = how.beta2,
      .beta2_rest = static_cast<float>(1.0 - double{how.beta2}),
      .inverse_root = static_cast<float>(1.0 / std::sqrt(correction2)),
      .eps = how.eps,
      .step_size = static_cast<float>(double{how.learning_rate} / correction1)};
  const auto blocks = [this](std::int64_t threads) {
    return static_cast<unsigned>(
        std::min<std::int64_t>((threads + 255) / 256, 16 * multiprocessors_));
  };
  const auto aligned = [](const float* at) {
    return reinterpret_cast<std::uintptr_t>(at) % sizeof(float4) == 0;
  };
  std::int64_t done = 0;
  if (count >= 4 && aligned(gradient) && aligned(w) && aligned(m) && aligned(v)) {
    const auto four = [](auto* at) { return reinterpret_cast<float4*>(at); };
    adamw_quads<<<blocks(count / 4), 256, 0, stream_>>>(
        task, reinterpret_cast<const float4*>(gradient), count / 4, four(w), four(m), four(v));
    done = count / 4 * 4;
  }
  if (done < count)
    adamw_all<<<blocks(count - done), 256, 0, stream_>>>(task, gradient + done, count - done,
                                                         w + done, m + done, v + done);
  launched("adamw", 1, count);
}

}  // namespace tandem::kernels::cuda
