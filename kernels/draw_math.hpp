// The arithmetic of a draw (draw_rule in backend.hpp): one for the host and for devices, so that
// equal logits give equal tokens wherever they are drawn. Weights are floats by one formula; sums
// are of whole numbers, so that no order of adding changes them. Compiled without contracting a
// product and a sum into one rounding, on a device too (kernels/CMakeLists.txt).
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace tandem::kernels::drawing {

// What a clamped exponential gives for all that is too far below: nothing.
inline constexpr float vanishing = 2e-38F;

constexpr float clamped(float x) { return x > -87.0F ? x : -87.0F; }  // NaN too is far below

// exp(a) for a in [-87, 0].
constexpr float exp_within(float a) {
  // a = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts so that r loses no bits.
  const auto n = static_cast<std::int32_t>(a * 1.44269504F - 0.5F);
  const auto whole = static_cast<float>(n);
  const float r = (a - whole * 0.693359375F) + whole * 2.12194440e-4F;
  // Taylor to r^7: the rest is under 6e-9.
  float y = 1.0F / 5040;
  y = y * r + 1.0F / 720;
  y = y * r + 1.0F / 120;
  y = y * r + 1.0F / 24;
  y = y * r + 1.0F / 6;
  y = y * r + 0.5F;
  y = y * r + 1.0F;
  y = y * r + 1.0F;
  return y * std::bit_cast<float>((n + 127) << 23);
}

// exp((x - top) * inverse_temperature) for x up to `top`, 0 where that is under `least`
// (`vanishing` or more).
constexpr float weight(float x, float top, float inverse_temperature, float least) {
  const float y = exp_within(clamped((x - top) * inverse_temperature));
  return y >= least ? y : 0.0F;
}

// A weight (up to 1) in units of 2^-42, rounded to nearest. So 2^21 of them can be added, and what
// is lost of 2^18 is under 2^-25 of the whole.
inline constexpr std::int64_t most_weights = std::int64_t{1} << 21;
inline constexpr std::uint64_t one = std::uint64_t{1} << 42;
constexpr std::uint64_t units(float weight) {
  constexpr double above = 1024.0;  // a double of its size counts in units
  return std::bit_cast<std::uint64_t>(static_cast<double>(weight) + above) -
         std::bit_cast<std::uint64_t>(above);
}

// A share of 1 as a fraction of 2^64. Exact for what has 53 binary places, as uniform numbers have.
constexpr std::uint64_t share_of_one(double share) {
  return static_cast<std::uint64_t>(share * 0x1.0p53) << 11U;
}
// That share of `total`, rounded down: the high half of their product.
constexpr std::uint64_t part_of(std::uint64_t total, std::uint64_t share) {
  constexpr std::uint64_t low = 0xffffffffU;
  const std::uint64_t a = (total & low) * (share & low);
  const std::uint64_t b = (total >> 32U) * (share & low) + (a >> 32U);
  const std::uint64_t c = (total & low) * (share >> 32U) + (b & low);
  return (total >> 32U) * (share >> 32U) + (b >> 32U) + (c >> 32U);
}

// Of V ids, what the nucleus must hold: the largest, whatever top_p says.
constexpr std::uint64_t nucleus_wanted(std::uint64_t total, std::uint64_t top_p) {
  return std::max<std::uint64_t>(part_of(total, top_p), 1);
}
// All that weigh less than this do not make up what the nucleus leaves out: the cut lies above
// them, and a real model's tail is mostly they. (Below total / V by so much that rounding does not
// matter.) Good for any total down to `total`.
constexpr std::uint64_t nucleus_floor(std::uint64_t total, std::uint64_t top_p,
                                      std::int64_t vocabulary) {
  const std::uint64_t spare =
      (total - nucleus_wanted(total, top_p)) / static_cast<std::uint64_t>(vocabulary);
  return spare > 64 ? spare - spare / 64 : 0;
}

// Logits by their distance below the top, in buckets of 1/64: what falls in a later one is smaller.
// Beyond the last one there is less than half a unit.
inline constexpr int buckets = 2048;
constexpr int bucket_of(float x, float top, float inverse_temperature) {
  const float distance = (top - x) * inverse_temperature * 64.0F;
  return distance < static_cast<float>(buckets - 1) ? static_cast<int>(distance) : buckets - 1;
}

// Floats as whole numbers of the same order; the zeros are one, NaN is below everything.
constexpr std::uint32_t key_of(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return 0;
  if (x == 0.0F) return 0x80000000U;
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}
constexpr float value_of(std::uint32_t key) {
  return std::bit_cast<float>((key & 0x80000000U) != 0 ? key ^ 0x80000000U : ~key);
}
// The smallest key up to `last` whose logit falls in `bucket` or one before; `last` falls there.
constexpr std::uint32_t first_key_within(int bucket, float top, float inverse_temperature,
                                         std::uint32_t last) {
  std::uint32_t first = key_of(-3.4028234663852886e38F);
  while (first < last) {
    const std::uint32_t middle = first + (last - first) / 2;
    if (bucket_of(value_of(middle), top, inverse_temperature) <= bucket)
      last = middle;
    else
      first = middle + 1;
  }
  return first;
}

}  // namespace tandem::kernels::drawing
