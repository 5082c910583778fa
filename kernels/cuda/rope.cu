// Rotary embedding: the angles, and each head turned on its way to the cache or to training's
// attention. A warp takes a head of a row: reads it once or twice, writes it once.
#include "kernels/cuda/attention_cache.cuh"
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/rope_heads.cuh"
#include "kernels/op_checks.hpp"

namespace tandem::kernels::cuda {
namespace {

__global__ void angles(const std::int32_t* positions, const float* frequencies, std::int64_t rows,
                       std::int32_t half, double factor, float* cos_sin) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= rows * half) return;
  const std::int64_t row = i / half;
  const std::int64_t column = i % half;
  double sine = 0.0;
  double cosine = 0.0;
  sincos(static_cast<double>(positions[row]) * static_cast<double>(frequencies[column]), &sine,
         &cosine);
  cos_sin[row * 2 * half + column] = static_cast<float>(cosine * factor);
  cos_sin[row * 2 * half + half + column] = static_cast<float>(sine * factor);
}

__device__ void put_kv(half* at, float value) { *at = __float2half_rn(value); }
__device__ void put_kv(float* at, float value) { *at = value; }

struct store_args {
  float* qkv;
  std::int64_t stride;
  int query_heads;
  int key_heads;
  int rotary_size;
  const float* cos_sin;
  const float* query_norm;
  const float* key_norm;
  float eps;
  device_spans spans;
  cache_view cache;
};

template <class Value>
__global__ void stored_heads(store_args args) {
  wait_for_previous();
  const std::int64_t row = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y) * rope_warps + static_cast<int>(threadIdx.x) / 32;
  const int turned = args.query_heads + args.key_heads;
  if (head >= turned + args.key_heads) return;
  const int H = args.cache.head_size;
  float* const x = args.qkv + row * args.stride + std::int64_t{head} * H;
  const float* const cos_sin = args.cos_sin + row * args.rotary_size;
  if (head < args.query_heads) {
    turn_head(x, H, args.rotary_size, cos_sin, args.query_norm, args.eps,
              [x](int h, float value) { x[h] = value; });
    return;
  }
  const device_span span = args.spans.spans[args.spans.span_of_row[row]];
  const int position = span.first_position + static_cast<int>(row - span.first_row);
  const std::int32_t block = args.spans.blocks[span.first_block + position / kv_block_positions];
  const int slot = position % kv_block_positions;
  if (head < turned) {
    Value* const to = args.cache.keys<Value>(block, head - args.query_heads) + slot * H;
    turn_head(x, H, args.rotary_size, cos_sin, args.key_norm, args.eps,
              [to](int h, float value) { put_kv(to + h, value); });
    return;
  }
  Value* const to = args.cache.keys<Value>(block, head - turned) + (kv_block_positions + slot) * H;
  for (int h = static_cast<int>(threadIdx.x) % 32; h < H; h += 32) put_kv(to + h, x[h]);
}

struct turn_args {
  const float* from;
  std::int64_t from_stride;
  float* to;
  std::int64_t to_stride;
  int query_heads;
  int key_heads;
  int head_size;
  int rotary_size;
  const float* cos_sin;
  const float* query_norm;
  const float* key_norm;
  float eps;
};

__global__ void turned_heads(turn_args args) {
  const std::int64_t row = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y) * rope_warps + static_cast<int>(threadIdx.x) / 32;
  const int turned = args.query_heads + args.key_heads;
  if (head >= turned + args.key_heads) return;
  const int H = args.head_size;
  const float* const x = args.from + row * args.from_stride + std::int64_t{head} * H;
  float* const to = args.to + row * args.to_stride + std::int64_t{head} * H;
  if (head >= turned) {
    if (to == x) return;
    for (int h = static_cast<int>(threadIdx.x) % 32; h < H; h += 32) to[h] = x[h];
    return;
  }
  turn_head(x, H, args.rotary_size, args.cos_sin + row * args.rotary_size,
            head < args.query_heads ? args.query_norm : args.key_norm, args.eps,
            [to](int h, float value) { to[h] = value; });
}

dim3 grid_of_heads(std::int64_t rows, int heads) {
  return {static_cast<unsigned>(rows),
          static_cast<unsigned>((heads + rope_warps - 1) / rope_warps)};
}

}  // namespace

void cuda_device::rope_angles(std::span<const std::int32_t> positions_T,
                              std::span<const float> inverse_frequency, float factor,
                              float* cos_sin_TR) {
  const std::int64_t rows = std::ssize(positions_T);
  const std::int64_t half = std::ssize(inverse_frequency);
  if (rows * half == 0) return;
  const std::int32_t* const positions = upload(positions_T);
  const float* const frequencies = upload(inverse_frequency);
  if (refilling()) return;
  constexpr std::int64_t threads = 128;
  angles<<<static_cast<unsigned>((rows * half + threads - 1) / threads), threads, 0, stream_>>>(
      positions, frequencies, rows, static_cast<std::int32_t>(half), double{factor}, cos_sin_TR);
  launched("rope_angles", rows, half);
}

void cuda_device::rope_store(rows_out qkv_TX, std::span<const attention_span> spans,
                             const attention_shape& shape, const rope_step& rope,
                             const float* q_norm_H, const float* k_norm_H, float eps,
                             const kv_cache& cache) {
  if (qkv_TX.rows == 0) return;
  const kv_layout& layout = cache.layout;
  const int heads = shape.query_heads + 2 * layout.key_heads;
  require(checks::rope_store(qkv_TX, spans, shape, rope, cache, kv_block_bytes(cache.layout),
                             largest_head));
  const store_args args{qkv_TX.data,      qkv_TX.stride,    shape.query_heads,
                        layout.key_heads, rope.rotary_size, rope.cos_sin,
                        q_norm_H,         k_norm_H,         eps,
                        spans_of(spans),  view_of(cache)};
  if (refilling()) return;
  const dim3 grid = grid_of_heads(qkv_TX.rows, heads);
  if (layout.format == kv_format::f16) {
    launch_early(stored_heads<half>, grid, 32 * rope_warps, 0, stream_, args);
  } else {
    launch_early(stored_heads<float>, grid, 32 * rope_warps, 0, stream_, args);
  }
  launched("rope_store", qkv_TX.rows, qkv_TX.columns);
}

void cuda_device::rope(rows_in qkv_TX, int query_heads, int key_heads, int head_size,
                       const rope_step& rope, const float* q_norm_H, const float* k_norm_H,
                       float eps, rows_out out_TX) {
  if (qkv_TX.rows == 0) return;
  const int heads = query_heads + 2 * key_heads;
  require(checks::rope(qkv_TX, query_heads, key_heads, head_size, rope, out_TX));
  const turn_args args{qkv_TX.data,  qkv_TX.stride, out_TX.data, out_TX.stride,
                       query_heads,  key_heads,     head_size,   rope.rotary_size,
                       rope.cos_sin, q_norm_H,      k_norm_H,    eps};
  turned_heads<<<grid_of_heads(qkv_TX.rows, heads), 32 * rope_warps, 0, stream_>>>(args);
  launched("rope", qkv_TX.rows, qkv_TX.columns);
}

}  // namespace tandem::kernels::cuda
