// Waiting for another thread that is expected within microseconds: spin for a short time, then
// sleep.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tandem::kernels {

// Longer spinning was measured to halve the speed when another process wants the core.
inline constexpr auto spin_time = std::chrono::microseconds(50);

inline void spin_pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Waits until the word differs from `old`. Counted in time because a pause takes 10 to 140 cycles.
inline void wait_while(const std::atomic<std::uint32_t>& word, std::uint32_t old) {
  for (int i = 0; i < 64; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    spin_pause();
  }
  const auto end = std::chrono::steady_clock::now() + spin_time;
  while (std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < 8; ++i) {
      if (word.load(std::memory_order_acquire) != old) return;
      spin_pause();
    }
  }
  while (word.load(std::memory_order_acquire) == old) word.wait(old, std::memory_order_acquire);
}

}  // namespace tandem::kernels
