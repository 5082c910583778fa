// Sixteen lanes as two 256-bit registers; the same names as lanes_avx512.hpp, which says what holds
// for both. Included only by files compiled for AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define TANDEM_INLINE [[gnu::always_inline]] static inline

namespace tandem::kernels::cpu {
namespace {

struct lanes {
  struct floats {
    __m256 low, high;
  };
  struct ints {
    __m256i low, high;
  };

  static constexpr int registers = 16;
  static constexpr int registers_per_value = 2;
  static constexpr int block_strip_rows = 4;
  static constexpr int float_strip_rows = 6;
  static constexpr int score_queries = 6;
  static constexpr int value_queries = 3;
  static constexpr int value_vectors = 2;

  // All ones in lanes below n.
  TANDEM_INLINE ints below(int n) {
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return {_mm256_cmpgt_epi32(_mm256_set1_epi32(n), index),
            _mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8), index)};
  }
  TANDEM_INLINE const __m256i* as_256(const std::byte* p) {
    return reinterpret_cast<const __m256i*>(p);
  }
  TANDEM_INLINE const __m128i* as_128(const std::byte* p) {
    return reinterpret_cast<const __m128i*>(p);
  }

  TANDEM_INLINE floats zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  TANDEM_INLINE floats all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  TANDEM_INLINE floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  TANDEM_INLINE floats load(const float* p, int n) {
    const ints mask = below(n);
    return {_mm256_maskload_ps(p, mask.low), _mm256_maskload_ps(p + 8, mask.high)};
  }
  TANDEM_INLINE void store(float* p, floats x) {
    _mm256_storeu_ps(p, x.low);
    _mm256_storeu_ps(p + 8, x.high);
  }
  TANDEM_INLINE void store(float* p, floats x, int n) {
    const ints mask = below(n);
    _mm256_maskstore_ps(p, mask.low, x.low);
    _mm256_maskstore_ps(p + 8, mask.high, x.high);
  }
  TANDEM_INLINE floats load_half(const std::byte* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(as_128(p))),
            _mm256_cvtph_ps(_mm_loadu_si128(as_128(p + 16)))};
  }
  TANDEM_INLINE void store_half(std::byte* p, floats x) {
    constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.low, nearest));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 16), _mm256_cvtps_ph(x.high, nearest));
  }
  TANDEM_INLINE floats load_bf16(const std::byte* p) {
    const auto widen = [](__m128i words) __attribute__((always_inline)) {
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
    };
    return {widen(_mm_loadu_si128(as_128(p))), widen(_mm_loadu_si128(as_128(p + 16)))};
  }
  TANDEM_INLINE floats load_e4m3(const std::byte* p) {
    const __m256i words = _mm256_cvtepi8_epi16(_mm_loadu_si128(as_128(p)));
    const __m256i mask = _mm256_set1_epi16(static_cast<std::int16_t>(0xBF80));
    const __m256i halves = _mm256_and_si256(_mm256_slli_epi16(words, 7), mask);
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
            _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
  }
  TANDEM_INLINE void load_two_e4m3(const std::byte* p, floats& first, floats& second) {
    first = load_e4m3(p);
    second = load_e4m3(p + 16);
  }

  TANDEM_INLINE floats add(floats a, floats b) {
    return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
  }
  TANDEM_INLINE floats subtract(floats a, floats b) {
    return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
  }
  TANDEM_INLINE floats multiply(floats a, floats b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
  }
  TANDEM_INLINE floats divide(floats a, floats b) {
    return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
  }
  TANDEM_INLINE floats fma(floats a, floats b, floats c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  TANDEM_INLINE floats greater(floats a, floats b) {
    return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
  }
  TANDEM_INLINE floats smaller(floats a, floats b) {
    return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
  }
  TANDEM_INLINE floats magnitude(floats a) {
    const __m256 bits = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    return {_mm256_and_ps(a.low, bits), _mm256_and_ps(a.high, bits)};
  }
  TANDEM_INLINE floats round(floats a) {
    constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(a.low, nearest), _mm256_round_ps(a.high, nearest)};
  }
  TANDEM_INLINE __m256 power_of_two(__m256 n) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
  }
  TANDEM_INLINE floats power_of_two(floats n) {
    return {power_of_two(n.low), power_of_two(n.high)};
  }
  TANDEM_INLINE floats where_less(floats a, floats b, floats x, floats y) {
    return {_mm256_blendv_ps(y.low, x.low, _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ)),
            _mm256_blendv_ps(y.high, x.high, _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ))};
  }
  TANDEM_INLINE floats between(int begin, int end, floats x, floats y) {
    const ints before = below(begin);
    const ints until = below(end);
    const __m256 low = _mm256_castsi256_ps(_mm256_andnot_si256(before.low, until.low));
    const __m256 high = _mm256_castsi256_ps(_mm256_andnot_si256(before.high, until.high));
    return {_mm256_blendv_ps(y.low, x.low, low), _mm256_blendv_ps(y.high, x.high, high)};
  }
  TANDEM_INLINE float sum(floats a) {
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  TANDEM_INLINE float largest(floats a) {
    const __m256 eight = _mm256_max_ps(a.low, a.high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
  TANDEM_INLINE floats roots(floats a) { return {_mm256_sqrt_ps(a.low), _mm256_sqrt_ps(a.high)}; }
  TANDEM_INLINE float root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

  TANDEM_INLINE ints zero_ints() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  TANDEM_INLINE ints all_ints(std::int32_t x) {
    return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
  }
  TANDEM_INLINE ints load_bytes(const std::byte* p) {
    return {_mm256_load_si256(as_256(p)), _mm256_load_si256(as_256(p + 32))};
  }
  TANDEM_INLINE ints low_nibbles(ints v) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(v.low, mask), _mm256_and_si256(v.high, mask)};
  }
  TANDEM_INLINE ints high_nibbles(ints v) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(_mm256_srli_epi16(v.low, 4), mask),
            _mm256_and_si256(_mm256_srli_epi16(v.high, 4), mask)};
  }
  TANDEM_INLINE ints field(ints v, int shift, int mask) {
    const __m128i count = _mm_cvtsi32_si128(shift);
    const __m256i bits = _mm256_set1_epi32(mask);
    return {_mm256_and_si256(_mm256_srl_epi32(v.low, count), bits),
            _mm256_and_si256(_mm256_srl_epi32(v.high, count), bits)};
  }
  TANDEM_INLINE ints add_ints(ints a, ints b) {
    return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
  }
  TANDEM_INLINE floats to_floats(ints a) {
    return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)};
  }
  TANDEM_INLINE ints to_ints(floats a) {
    return {_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high)};
  }
  TANDEM_INLINE std::int32_t sum_ints(ints a) {
    const __m256i eight = _mm256_add_epi32(a.low, a.high);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1));
    return _mm_cvtsi128_si32(four);
  }
  TANDEM_INLINE void store_int8(std::byte* p, ints a) {
    // Packing works within 128-bit halves: words come as a0-3 b0-3 a4-7 b4-7.
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.low, a.high), 0xD8);
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(p),
        _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
  }

  // Eight columns of up to eight rows.
  TANDEM_INLINE void turn_eight(const float* x, std::int64_t stride, int rows, float* out,
                                std::int64_t out_stride) {
    __m256 a[8];
    __m256 b[8];
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) {
      a[r] = r < rows ? _mm256_loadu_ps(x + r * stride) : _mm256_setzero_ps();
    }
#pragma GCC unroll 4
    for (int r = 0; r < 8; r += 2) {
      b[r] = _mm256_unpacklo_ps(a[r], a[r + 1]);
      b[r + 1] = _mm256_unpackhi_ps(a[r], a[r + 1]);
    }
#pragma GCC unroll 2
    for (int r = 0; r < 8; r += 4) {
      a[r] = _mm256_shuffle_ps(b[r], b[r + 2], 0x44);
      a[r + 1] = _mm256_shuffle_ps(b[r], b[r + 2], 0xEE);
      a[r + 2] = _mm256_shuffle_ps(b[r + 1], b[r + 3], 0x44);
      a[r + 3] = _mm256_shuffle_ps(b[r + 1], b[r + 3], 0xEE);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      b[c] = _mm256_permute2f128_ps(a[c], a[c + 4], 0x20);
      b[c + 4] = _mm256_permute2f128_ps(a[c], a[c + 4], 0x31);
    }
#pragma GCC unroll 8
    for (int c = 0; c < 8; ++c) _mm256_storeu_ps(out + c * out_stride, b[c]);
  }
  TANDEM_INLINE void turn(const float* x, std::int64_t stride, int rows, float* out,
                          std::int64_t out_stride) {
    // Rows above eight only with a stride of sixteen, where nothing overlaps.
    for (int c = 0; c < 16; c += 8) {
      turn_eight(x + c, stride, rows, out + c * out_stride, out_stride);
      if (rows <= 8 && out_stride < 16) continue;
      turn_eight(x + c + 8 * stride, stride, rows - 8, out + c * out_stride + 8, out_stride);
    }
  }

  TANDEM_INLINE __m256i dot_pairs(__m256i sum, __m256i w, __m256i a) {
    const __m256i pairs = _mm256_maddubs_epi16(w, a);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  TANDEM_INLINE ints dot_nibbles(ints sum, ints w, ints a) {
    return {dot_pairs(sum.low, w.low, a.low), dot_pairs(sum.high, w.high, a.high)};
  }
  // With 128 + q two products would overflow 16 bits, so the sign moves to the activation:
  // |q| <= 128, |a| <= 127, and 2 * 128 * 127 fits. No offset then.
  TANDEM_INLINE ints dot_bytes(ints sum, ints w, ints a) {
    const __m256i flip = _mm256_set1_epi8(-128);
    const __m256i low = _mm256_xor_si256(w.low, flip);
    const __m256i high = _mm256_xor_si256(w.high, flip);
    return {dot_pairs(sum.low, _mm256_abs_epi8(low), _mm256_sign_epi8(a.low, low)),
            dot_pairs(sum.high, _mm256_abs_epi8(high), _mm256_sign_epi8(a.high, high))};
  }
  TANDEM_INLINE ints start_bytes(std::int32_t) { return zero_ints(); }
};

}  // namespace
}  // namespace tandem::kernels::cpu
