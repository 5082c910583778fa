// Sixteen lanes as one 512-bit register. Included only by files compiled for AVX-512; the name is
// unnamed-namespace local so that nothing of it is shared with other files.
//
// lanes_avx2.hpp has the same names with the same roundings and the same order in every sum, so
// results are equal to the bit on any machine that runs one of the fast variants.
#pragma once

#include <immintrin.h>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define TANDEM_INLINE [[gnu::always_inline]] static inline

namespace tandem::kernels::cpu {
namespace {

struct lanes {
  using floats = __m512;
  using ints = __m512i;  // 16 dwords, or 64 bytes

  static constexpr int registers = 32;
  static constexpr int registers_per_value = 1;
  static constexpr int block_strip_rows = 16;
  static constexpr int float_strip_rows = 14;
  static constexpr int score_queries = 12;
  static constexpr int value_queries = 6;
  static constexpr int value_vectors = 4;

  TANDEM_INLINE __mmask16 first(int n) { return static_cast<__mmask16>((1U << n) - 1U); }

  TANDEM_INLINE floats zero() { return _mm512_setzero_ps(); }
  TANDEM_INLINE floats all(float x) { return _mm512_set1_ps(x); }
  TANDEM_INLINE floats load(const float* p) { return _mm512_loadu_ps(p); }
  TANDEM_INLINE floats load(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
  TANDEM_INLINE void store(float* p, floats x) { _mm512_storeu_ps(p, x); }
  TANDEM_INLINE void store(float* p, floats x, int n) { _mm512_mask_storeu_ps(p, first(n), x); }
  TANDEM_INLINE floats load_half(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  TANDEM_INLINE void store_half(std::byte* p, floats x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  TANDEM_INLINE floats load_bf16(const std::byte* p) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
  }
  // Sixteen e4m3 numbers, 2^-8 times as large: shifted they are f16 with another exponent bias, of
  // which the sign's copy is taken out. Two times sixteen cost half a column's shifts each.
  TANDEM_INLINE void load_two_e4m3(const std::byte* p, floats& first, floats& second) {
    const __m512i words =
        _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    const __m512i mask = _mm512_set1_epi16(static_cast<std::int16_t>(0xBF80));
    const __m512i halves = _mm512_and_si512(_mm512_slli_epi16(words, 7), mask);
    first = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
    second = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
  }
  TANDEM_INLINE floats load_e4m3(const std::byte* p) {
    const __m256i words =
        _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m256i mask = _mm256_set1_epi16(static_cast<std::int16_t>(0xBF80));
    return _mm512_cvtph_ps(_mm256_and_si256(_mm256_slli_epi16(words, 7), mask));
  }

  TANDEM_INLINE floats add(floats a, floats b) { return _mm512_add_ps(a, b); }
  TANDEM_INLINE floats subtract(floats a, floats b) { return _mm512_sub_ps(a, b); }
  TANDEM_INLINE floats multiply(floats a, floats b) { return _mm512_mul_ps(a, b); }
  TANDEM_INLINE floats divide(floats a, floats b) { return _mm512_div_ps(a, b); }
  TANDEM_INLINE floats fma(floats a, floats b, floats c) { return _mm512_fmadd_ps(a, b, c); }
  // Of NaN and a number the second operand is the result.
  TANDEM_INLINE floats greater(floats a, floats b) { return _mm512_max_ps(a, b); }
  TANDEM_INLINE floats smaller(floats a, floats b) { return _mm512_min_ps(a, b); }
  TANDEM_INLINE floats magnitude(floats a) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7FFFFFFF)));
  }
  TANDEM_INLINE floats round(floats a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  TANDEM_INLINE floats power_of_two(floats n) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
  }
  // x where a < b, else y.
  TANDEM_INLINE floats where_less(floats a, floats b, floats x, floats y) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
  }
  // Lanes [begin, end) of x, the others from y.
  TANDEM_INLINE floats between(int begin, int end, floats x, floats y) {
    const int from = begin < 0 ? 0 : begin;
    const int to = end > 16 ? 16 : end;
    if (from >= to) return y;
    return _mm512_mask_blend_ps(static_cast<__mmask16>(first(to) & ~first(from)), y, x);
  }
  TANDEM_INLINE __m256 low(floats a) { return _mm512_castps512_ps256(a); }
  TANDEM_INLINE __m256 high(floats a) { return _mm512_extractf32x8_ps(a, 1); }
  TANDEM_INLINE float sum(floats a) {
    const __m256 eight = _mm256_add_ps(low(a), high(a));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  TANDEM_INLINE float largest(floats a) {
    const __m256 eight = _mm256_max_ps(low(a), high(a));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
  TANDEM_INLINE floats roots(floats a) { return _mm512_sqrt_ps(a); }
  TANDEM_INLINE float root(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

  TANDEM_INLINE ints zero_ints() { return _mm512_setzero_si512(); }
  TANDEM_INLINE ints all_ints(std::int32_t x) { return _mm512_set1_epi32(x); }
  TANDEM_INLINE ints load_bytes(const std::byte* p) { return _mm512_load_si512(p); }
  TANDEM_INLINE ints low_nibbles(ints v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
  TANDEM_INLINE ints high_nibbles(ints v) {
    return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15));
  }
  // (v >> shift) & mask in each dword.
  TANDEM_INLINE ints field(ints v, int shift, int mask) {
    return _mm512_and_si512(_mm512_srl_epi32(v, _mm_cvtsi32_si128(shift)), all_ints(mask));
  }
  TANDEM_INLINE ints add_ints(ints a, ints b) { return _mm512_add_epi32(a, b); }
  TANDEM_INLINE floats to_floats(ints a) { return _mm512_cvtepi32_ps(a); }
  TANDEM_INLINE ints to_ints(floats a) { return _mm512_cvtps_epi32(a); }
  TANDEM_INLINE std::int32_t sum_ints(ints a) { return _mm512_reduce_add_epi32(a); }
  TANDEM_INLINE void store_int8(std::byte* p, ints a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(a));
  }

  // Sixteen columns of up to sixteen rows turned over: out[c * out_stride + r]. Whole vectors are
  // written in order of c; lanes behind the last row are zero.
  TANDEM_INLINE void turn(const float* x, std::int64_t stride, int rows, float* out,
                          std::int64_t out_stride) {
    __m512 a[16];
    __m512 b[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) a[r] = r < rows ? load(x + r * stride) : zero();
#pragma GCC unroll 8
    for (int r = 0; r < 16; r += 2) {
      b[r] = _mm512_unpacklo_ps(a[r], a[r + 1]);
      b[r + 1] = _mm512_unpackhi_ps(a[r], a[r + 1]);
    }
    // Of rows r ... r + 3, columns 4 q + c in quarter q of vector r + c.
#pragma GCC unroll 4
    for (int r = 0; r < 16; r += 4) {
      const auto pd = [](__m512 v) __attribute__((always_inline)) { return _mm512_castps_pd(v); };
      const auto ps = [](__m512d v) __attribute__((always_inline)) { return _mm512_castpd_ps(v); };
      a[r] = ps(_mm512_unpacklo_pd(pd(b[r]), pd(b[r + 2])));
      a[r + 1] = ps(_mm512_unpackhi_pd(pd(b[r]), pd(b[r + 2])));
      a[r + 2] = ps(_mm512_unpacklo_pd(pd(b[r + 1]), pd(b[r + 3])));
      a[r + 3] = ps(_mm512_unpackhi_pd(pd(b[r + 1]), pd(b[r + 3])));
    }
    // Quarters of four vectors make one column each.
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const __m512 low01 = _mm512_shuffle_f32x4(a[c], a[c + 4], 0x44);
      const __m512 high01 = _mm512_shuffle_f32x4(a[c], a[c + 4], 0xEE);
      const __m512 low23 = _mm512_shuffle_f32x4(a[c + 8], a[c + 12], 0x44);
      const __m512 high23 = _mm512_shuffle_f32x4(a[c + 8], a[c + 12], 0xEE);
      b[c] = _mm512_shuffle_f32x4(low01, low23, 0x88);
      b[c + 4] = _mm512_shuffle_f32x4(low01, low23, 0xDD);
      b[c + 8] = _mm512_shuffle_f32x4(high01, high23, 0x88);
      b[c + 12] = _mm512_shuffle_f32x4(high01, high23, 0xDD);
    }
#pragma GCC unroll 16
    for (int c = 0; c < 16; ++c) store(out + c * out_stride, b[c]);
  }

#if defined(__AVX512VNNI__)
  // Weights 0..15, or 128 + q of q8_0, times signed activations; the offset undoes the 128.
  TANDEM_INLINE ints dot_nibbles(ints sum, ints w, ints a) {
    return _mm512_dpbusd_epi32(sum, w, a);
  }
  TANDEM_INLINE ints dot_bytes(ints sum, ints w, ints a) { return _mm512_dpbusd_epi32(sum, w, a); }
  TANDEM_INLINE ints start_bytes(std::int32_t offset) { return all_ints(offset); }
#else
  TANDEM_INLINE ints dot_nibbles(ints sum, ints w, ints a) {
    const ints pairs = _mm512_maddubs_epi16(w, a);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
  // With 128 + q two products would overflow 16 bits, so the sign moves to the activation:
  // |q| <= 128, |a| <= 127, and 2 * 128 * 127 fits. No offset then.
  TANDEM_INLINE ints dot_bytes(ints sum, ints w, ints a) {
    const ints q = _mm512_xor_si512(w, _mm512_set1_epi8(-128));
    const ints signed_a = _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(q), zero_ints(), a);
    const ints pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(q), signed_a);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
  TANDEM_INLINE ints start_bytes(std::int32_t) { return zero_ints(); }
#endif
};

}  // namespace
}  // namespace tandem::kernels::cpu
