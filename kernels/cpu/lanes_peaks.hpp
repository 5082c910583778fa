// The most that a variant's multiply instructions do in a loop without memory: what a kernel's
// speed is a share of.
#pragma once

#include "kernels/cpu/kernel_table.hpp"
#include "kernels/cpu/lanes_math.hpp"

namespace tandem::kernels::cpu {

// Enough independent sums to hide four cycles of latency in two pipes, few enough for 16 registers.
inline constexpr int peak_sums = 12;

template <class L>
float peak_floats(std::int64_t rounds) {
  constexpr int sums = peak_sums / L::registers_per_value;
  typename L::floats sum[sums];
  TANDEM_UNROLL
  for (int i = 0; i < sums; ++i) sum[i] = L::all(static_cast<float>(i));
  const auto a = L::all(0.999F);
  for (std::int64_t r = 0; r < rounds; ++r) {
    TANDEM_UNROLL
    for (int i = 0; i < sums; ++i) sum[i] = L::fma(sum[i], a, a);
  }
  for (int i = 1; i < sums; ++i) sum[0] = L::add(sum[0], sum[i]);
  return L::sum(sum[0]);
}

template <class L>
float peak_bytes(std::int64_t rounds) {
  constexpr int sums = peak_sums / L::registers_per_value;
  typename L::ints sum[sums];
  TANDEM_UNROLL
  for (int i = 0; i < sums; ++i) sum[i] = L::all_ints(i);
  const auto a = L::all_ints(static_cast<std::int32_t>(rounds) & 0x0F0F0F0F);
  for (std::int64_t r = 0; r < rounds; ++r) {
    TANDEM_UNROLL
    for (int i = 0; i < sums; ++i) sum[i] = L::dot_nibbles(sum[i], a, a);
  }
  for (int i = 1; i < sums; ++i) sum[0] = L::add_ints(sum[0], sum[i]);
  return static_cast<float>(L::sum_ints(sum[0]));
}

}  // namespace tandem::kernels::cpu
