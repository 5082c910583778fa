// A head of queries or keys normed and turned by one warp: what rope_store, rope and its backward
// share.
#pragma once

#include "kernels/cuda/device_math.cuh"

namespace tandem::kernels::cuda {

// A block's warps take a row's heads, one each.
inline constexpr int rope_warps = 8;

// 1 / sqrt(mean(x^2) + eps) of a head, the same bits in every lane.
__device__ inline float inverse_rms_of_head(const float* x, int head_size, float eps) {
  float squares = 0.0F;
  for (int h = static_cast<int>(threadIdx.x) % 32; h < head_size; h += 32) squares += x[h] * x[h];
  return 1.0F / sqrtf(warp_sum(squares) / static_cast<float>(head_size) + eps);
}

// put(h, value of the head at h) of all its columns: normed where `norm` is given, pairs turned.
// A lane reads what it puts, so that put may write to x.
template <class Put>
__device__ void turn_head(const float* x, int head_size, int rotary_size, const float* cos_sin,
                          const float* norm, float eps, const Put& put) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float inverse = norm != nullptr ? inverse_rms_of_head(x, head_size, eps) : 1.0F;
  const auto value = [&](int h) { return norm != nullptr ? x[h] * inverse * norm[h] : x[h]; };
  const int half = rotary_size / 2;
  for (int i = lane; i < half; i += 32) {
    const float a = value(i);
    const float b = value(half + i);
    const float cosine = cos_sin[i];
    const float sine = cos_sin[half + i];
    put(i, a * cosine - b * sine);
    put(half + i, b * cosine + a * sine);
  }
  for (int h = 2 * half + lane; h < head_size; h += 32) put(h, value(h));
}

}  // namespace tandem::kernels::cuda
