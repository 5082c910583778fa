// Activations rounded for the products: to the weights' sixteen-bit type, or to int8 with one scale
// per 32 as the CPU does it. Traffic: rows read once in float32, written once.
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/products.cuh"
#include "kernels/cuda/rounding.cuh"

#include <algorithm>

namespace tandem::kernels::cuda {
namespace {

constexpr int block_threads = 256;

// One thread: eight columns of a row. Neighbours share a row's 32 columns, then come rows.
template <bool Half>
__global__ void round_rows(rows_in x, bool aligned, std::int32_t rows, std::int64_t groups,
                           uint4* out) {
  wait_for_previous();
  const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (at >= groups * rows * 4) return;
  const std::int64_t row = at / 4 % rows;
  const std::int64_t column = at / 4 / rows * 32 + at % 4 * 8;
  float v[8] = {};
  if (row < x.rows) load_columns(x.data + row * x.stride, column, x.columns, aligned, v);
  out[at] = Half ? eight_halves(v) : eight_bf16(v);
}

// One warp: two blocks of 32 columns of a row.
__global__ void quantize_rows(rows_in x, weight_format format, std::int32_t rows,
                              std::int64_t groups, std::byte* out, float2* scales) {
  wait_for_previous();
  const std::int64_t warp = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32;
  if (warp >= groups * rows) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t row = warp % rows;
  const std::int64_t group = warp / rows;
  // Half a warp is a block, a lane two columns.
  const int block = lane / 16;
  const int part = lane % 16;
  const std::int64_t column = group * 64 + block * 32 + part * 2;
  float v[2] = {};
  if (row < x.rows) {
    for (int i = 0; i < 2; ++i) {
      if (column + i < x.columns) v[i] = x.data[row * x.stride + column + i];
    }
  }
  float largest = fmaxf(fabsf(v[0]), fabsf(v[1]));
  for (int step = 8; step > 0; step /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(whole_warp, largest, step));
  // Below this the inverse would not be finite.
  const bool zero = !(largest > 1e-30F);
  const float scale = zero ? 0.0F : __fdiv_rn(largest, 127.0F);
  const float inverse = zero ? 0.0F : __fdiv_rn(127.0F, largest);
  int quants[2];
  for (int i = 0; i < 2; ++i) quants[i] = zero ? 0 : __float2int_rn(__fmul_rn(v[i], inverse));
  int sum = quants[0] + quants[1];
  for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(whole_warp, sum, step);
  auto* const to =
      reinterpret_cast<std::uint16_t*>(out + warp * 64 + part / 4 * 16 + block * 8 + part % 4 * 2);
  *to = static_cast<std::uint16_t>((quants[0] & 0xFF) | (quants[1] & 0xFF) << 8);
  if (part != 0) return;
  float added = 0.0F;
  if (format == weight_format::q4_0) added = __int_as_float(-8 * sum);
  if (format == weight_format::q4_1) added = __fmul_rn(scale, static_cast<float>(sum));
  scales[(group * 2 + block) * rows + row] = float2{scale, added};
}

}  // namespace

prepared_rows prepare_rows(weight_format format, rows_in x, std::byte* room, cudaStream_t stream) {
  prepared_rows prepared{room, nullptr, static_cast<std::int32_t>(prepared_row_count(x.rows))};
  const std::int64_t columns = tile_groups(format, x.columns) * group_columns(format);
  const auto grid = [](std::int64_t threads) {
    return static_cast<unsigned>((threads + block_threads - 1) / block_threads);
  };
  if (has_blocks(format)) {
    auto* const scales =
        reinterpret_cast<float2*>(room + prepared_data_bytes(format, x.rows, x.columns));
    const std::int64_t groups = columns / 64;
    launch_early(quantize_rows, dim3(grid(groups * prepared.rows * 32)), block_threads, 0, stream,
                 x, format, prepared.rows, groups, room, scales);
    prepared.scales = scales;
  } else {
    const std::int64_t groups = columns / 32;
    const bool aligned = loads_of_four(x);
    auto* const to = reinterpret_cast<uint4*>(room);
    const unsigned blocks = grid(groups * prepared.rows * 4);
    if (format == weight_format::f16) {
      launch_early(round_rows<true>, dim3(blocks), block_threads, 0, stream, x, aligned,
                   prepared.rows, groups, to);
    } else {
      launch_early(round_rows<false>, dim3(blocks), block_threads, 0, stream, x, aligned,
                   prepared.rows, groups, to);
    }
  }
  launched("rounding a product's rows", x.rows, x.columns);
  return prepared;
}

}  // namespace tandem::kernels::cuda
