// Backward of training's rope: each head's gradient turned back, then through the head norm where
// there is one; gradients of the norms' weights by the slot tree.
#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/rope_heads.cuh"
#include "kernels/op_checks.hpp"

namespace tandem::kernels::cuda {
namespace {

struct turn_back_args {
  const float* qkv;
  std::int64_t qkv_stride;
  float* d;
  std::int64_t d_stride;
  int query_heads;
  int key_heads;
  int head_size;
  int rotary_size;
  const float* cos_sin;
  const float* query_norm;
  const float* key_norm;
  float eps;
  float* inverse;  // 1 / rms, by row and turned head; null without norms

  __device__ const float* norm_of(int head) const {
    return head < query_heads ? query_norm : key_norm;
  }
};

__device__ int head_of_warp() {
  return static_cast<int>(blockIdx.y) * rope_warps + static_cast<int>(threadIdx.x) / 32;
}

__global__ void turned_back(turn_back_args args) {
  const std::int64_t row = blockIdx.x;
  const int head = head_of_warp();
  const int turned = args.query_heads + args.key_heads;
  if (head >= turned) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t column = std::int64_t{head} * args.head_size;
  float* const d = args.d + row * args.d_stride + column;
  const int half = args.rotary_size / 2;
  const float* const cosines = args.cos_sin + row * args.rotary_size;
  const float* const sines = cosines + half;
  for (int i = lane; i < half; i += 32) {
    const float a = d[i];
    const float b = d[half + i];
    d[i] = a * cosines[i] + b * sines[i];
    d[half + i] = b * cosines[i] - a * sines[i];
  }
  if (args.norm_of(head) == nullptr) return;
  const float inverse =
      inverse_rms_of_head(args.qkv + row * args.qkv_stride + column, args.head_size, args.eps);
  if (lane == 0) args.inverse[row * turned + head] = inverse;
}

// y = x r w with r = 1 / sqrt(mean(x^2) + eps): dx = r (dy w) - x r^3 / H sum(dy w x).
__global__ void through_norms(turn_back_args args) {
  const std::int64_t row = blockIdx.x;
  const int head = head_of_warp();
  const int turned = args.query_heads + args.key_heads;
  if (head >= turned) return;
  const float* const w = args.norm_of(head);
  if (w == nullptr) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int H = args.head_size;
  float* const d = args.d + row * args.d_stride + std::int64_t{head} * H;
  const float* const x = args.qkv + row * args.qkv_stride + std::int64_t{head} * H;
  const float inverse = args.inverse[row * turned + head];
  float along = 0.0F;
  for (int h = lane; h < H; h += 32) along += d[h] * w[h] * x[h];
  const float factor = warp_sum(along) * inverse * inverse / static_cast<float>(H);
  for (int h = lane; h < H; h += 32) d[h] = inverse * (d[h] * w[h] - x[h] * factor);
}

// dw[h] += the slot tree of d * (x / rms) over rows, and the heads of a row in order. A block takes
// 32 columns: its first warp adds, one term after the other, what the others have multiplied.
constexpr int term_warps = 8;
constexpr int terms_of_warp = 8;
constexpr int terms_at_once = term_warps * terms_of_warp;

struct norm_gradient_args {
  const float* d;  // of the first head
  std::int64_t d_stride;
  const float* x;
  std::int64_t x_stride;
  const float* inverse;
  int inverse_stride;
  int heads;
  int head_size;
  const row_segment* slots;
  std::int64_t slot_count;
  float* dw;
};

__global__ void __launch_bounds__(32 * (term_warps + 1)) norm_gradient(norm_gradient_args args) {
  __shared__ float terms[2][terms_at_once][32];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int h = static_cast<int>(blockIdx.x) * 32 + lane;
  const bool inside = h < args.head_size;
  const auto put_terms = [&](const row_segment& slot, std::int64_t first, std::int64_t count,
                             float(&to)[terms_at_once][32]) {
#pragma unroll
    for (int i = 0; i < terms_of_warp; ++i) {
      const int at = (warp - 1) * terms_of_warp + i;
      if (!inside || first + at >= count) continue;
      const std::int64_t row = slot.first_row + (first + at) / args.heads;
      const auto head = static_cast<int>((first + at) % args.heads);
      const std::int64_t column = std::int64_t{head} * args.head_size + h;
      to[at][lane] =
          args.d[row * args.d_stride + column] *
          (args.x[row * args.x_stride + column] * args.inverse[row * args.inverse_stride + head]);
    }
  };
  const float sum = tree_sum(args.slot_count, [&](std::int64_t s) {
    const row_segment slot = args.slots[s];
    const std::int64_t count = slot.row_count * args.heads;
    float slot_sum = 0.0F;
    // Round i adds what round i - 1 has multiplied.
    const std::int64_t rounds = (count + terms_at_once - 1) / terms_at_once;
    for (std::int64_t round = 0; round <= rounds; ++round) {
      const std::int64_t first = round * terms_at_once;
      if (warp > 0) {
        if (round < rounds) put_terms(slot, first, count, terms[round % 2]);
      } else if (round > 0) {
        const auto& ready = terms[(round - 1) % 2];
        const std::int64_t left = count - (first - terms_at_once);
        const int end = left < terms_at_once ? static_cast<int>(left) : terms_at_once;
#pragma unroll 8
        for (int i = 0; i < end; ++i)
          slot_sum = __fadd_rn(slot_sum, inside ? ready[i][lane] : 0.0F);
      }
      __syncthreads();
    }
    return slot_sum;
  });
  if (warp == 0 && inside) args.dw[h] += sum;
}

}  // namespace

void cuda_device::rope_backward(rows_in qkv_TX, int query_heads, int key_heads, int head_size,
                                const rope_step& rope, const float* q_norm_H, const float* k_norm_H,
                                float eps, std::span<const row_segment> slots, rows_out d_TX,
                                float* dq_norm_H, float* dk_norm_H) {
  if (d_TX.rows == 0) return;
  const int turned = query_heads + key_heads;
  const bool normed = q_norm_H != nullptr || k_norm_H != nullptr;
  require(checks::rope_backward(limits_, qkv_TX, query_heads, key_heads, head_size, rope, normed,
                                slots, d_TX));
  float* const inverse = normed ? scratch<float>(d_TX.rows * turned) : nullptr;
  const turn_back_args args{qkv_TX.data, qkv_TX.stride, d_TX.data,        d_TX.stride,  query_heads,
                            key_heads,   head_size,     rope.rotary_size, rope.cos_sin, q_norm_H,
                            k_norm_H,    eps,           inverse};
  const dim3 grid{static_cast<unsigned>(d_TX.rows),
                  static_cast<unsigned>((turned + rope_warps - 1) / rope_warps)};
  turned_back<<<grid, 32 * rope_warps, 0, stream_>>>(args);
  launched("rope_backward", d_TX.rows, d_TX.columns);
  if (normed) {
    const row_segment* const where = slots.empty() ? nullptr : upload(slots);
    const auto add_gradient = [&](int first_head, int heads, float* dw) {
      const std::int64_t column = std::int64_t{first_head} * head_size;
      const norm_gradient_args of{d_TX.data + column,
                                  d_TX.stride,
                                  qkv_TX.data + column,
                                  qkv_TX.stride,
                                  inverse + first_head,
                                  turned,
                                  heads,
                                  head_size,
                                  where,
                                  std::ssize(slots),
                                  dw};
      norm_gradient<<<static_cast<unsigned>((head_size + 31) / 32), 32 * (term_warps + 1), 0,
                      stream_>>>(of);
      launched("gradient of head norms", d_TX.rows, head_size);
    };
    if (q_norm_H != nullptr && dq_norm_H != nullptr) add_gradient(0, query_heads, dq_norm_H);
    if (k_norm_H != nullptr && dk_norm_H != nullptr)
      add_gradient(query_heads, key_heads, dk_norm_H);
    through_norms<<<grid, 32 * rope_warps, 0, stream_>>>(args);
    launched("rope_backward of norms", d_TX.rows, d_TX.columns);
  }
  end_scratch();
}

}  // namespace tandem::kernels::cuda
