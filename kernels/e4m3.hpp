// Eight-bit floats as FP8 files hold them: e4m3 of the OCP 8-bit floating point specification (1.0,
// 2023): sign, 4 bits of exponent with bias 7, 3 of mantissa; no infinities, NaN is 0x7F and 0xFF,
// the largest number is 448, the smallest 2^-9. One arithmetic for the host and for devices.
#pragma once

#include <bit>
#include <cstdint>

namespace tandem::kernels {

inline constexpr float largest_e4m3 = 448.0F;
// Columns of a row that share a scale in weight_format::fp8, from the first on.
inline constexpr std::int64_t fp8_block_columns = 128;

constexpr bool is_nan_e4m3(std::uint8_t code) { return (code & 0x7FU) == 0x7FU; }

// Exact.
constexpr float float_of_e4m3(std::uint8_t code) {
  const std::uint32_t sign = (code & 0x80U) << 24U;
  const std::uint32_t magnitude = code & 0x7FU;
  if (magnitude < 8) {
    const float value = static_cast<float>(magnitude) * 0x1p-9F;
    return sign != 0 ? -value : value;
  }
  if (magnitude == 0x7FU) return std::bit_cast<float>(sign | 0x7FC00000U);
  return std::bit_cast<float>(sign | ((magnitude + (120U << 3U)) << 20U));
}

// To nearest, ties to even; what lies above 448 becomes 448.
constexpr std::uint8_t e4m3_of(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint8_t>((bits >> 24U) & 0x80U);
  std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  std::uint32_t code = 0;
  if (magnitude > 0x7F800000U) {
    code = 0x7FU;
  } else if (magnitude >= std::bit_cast<std::uint32_t>(largest_e4m3)) {
    code = 0x7EU;
  } else if (magnitude < std::bit_cast<std::uint32_t>(0x1p-6F)) {
    // Subnormal: the unit in the last place of 2^14 is 2^-9, so the addition rounds for us.
    code = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0x1p14F) -
           std::bit_cast<std::uint32_t>(0x1p14F);
  } else {
    magnitude += 0x7FFFFU + ((magnitude >> 20U) & 1U);
    code = (magnitude >> 20U) - (120U << 3U);
  }
  return static_cast<std::uint8_t>(sign | code);
}

// Two of four codes, the even or the odd bytes of a word, as the bits of two bf16 numbers that are
// 2^-120 times as large: the exponent's bias differs by so much. Subnormal codes become subnormal.
constexpr std::uint32_t bf16_pair_of_e4m3(std::uint32_t codes, bool odd) {
  const std::uint32_t high = odd ? codes : codes << 8U;  // a code is the upper byte of its half
  return (high & 0x80008000U) | ((high & 0x7F007F00U) >> 4U);
}

}  // namespace tandem::kernels
