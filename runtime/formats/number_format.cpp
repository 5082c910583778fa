#include "runtime/formats/number_format.hpp"

#include "kernels/cpu/half.hpp"
#include "kernels/ensure.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace tandem::formats {
namespace {

using kernels::source_format;

constexpr std::size_t block = 32;
constexpr std::size_t block_bytes = 2 + block;

std::uint16_t bf16_of(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16U) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U);
}

bool store_f16(std::span<const float> numbers, std::byte* out) {
  bool fits = true;
  for (const float number : numbers) {
    const std::uint16_t half = kernels::cpu::half_of(number);
    fits = fits && ((half & 0x7c00U) != 0x7c00U || !std::isfinite(number));
    std::memcpy(out, &half, sizeof half);
    out += sizeof half;
  }
  return fits;
}

void store_bf16(std::span<const float> numbers, std::byte* out) {
  for (const float number : numbers) {
    const std::uint16_t half = bf16_of(number);
    std::memcpy(out, &half, sizeof half);
    out += sizeof half;
  }
}

// As ggml's quantize_row_q8_0: the scale is the largest magnitude over 127.
bool store_q8_0(std::span<const float> numbers, std::byte* out) {
  bool fits = true;
  for (; !numbers.empty(); numbers = numbers.subspan(block), out += block_bytes) {
    float largest = 0.0F;
    for (const float number : numbers.first(block)) largest = std::max(largest, std::fabs(number));
    const float scale = largest / 127.0F;
    fits = store_f16({&scale, 1}, out) && fits;
    for (std::size_t i = 0; i < block; ++i) {
      const float steps = scale == 0.0F ? 0.0F : std::round(numbers[i] * (1.0F / scale));
      out[2 + i] = static_cast<std::byte>(static_cast<std::int8_t>(steps));
    }
  }
  return fits;
}

}  // namespace

std::optional<source_format> stored_format_from(std::string_view name) {
  if (name == "f32") return source_format::f32;
  if (name == "f16") return source_format::f16;
  if (name == "bf16") return source_format::bf16;
  if (name == "q8_0") return source_format::q8_0;
  return std::nullopt;
}

std::string_view name_of(source_format format) {
  constexpr std::string_view names[] = {"f32",  "f16",  "bf16", "q8_0", "q4_0", "q4_1",
                                        "q5_0", "q5_1", "q4_k", "q5_k", "q6_k", "e4m3"};
  return names[static_cast<std::size_t>(format)];
}

bool store_numbers(source_format format, std::span<const float> numbers, std::span<std::byte> out) {
  ensure(out.size() == kernels::source_row_bytes(format, static_cast<std::int64_t>(numbers.size())),
         "numbers and bytes that do not match");
  switch (format) {
    case source_format::f32:
      std::memcpy(out.data(), numbers.data(), out.size());
      return true;
    case source_format::f16:
      return store_f16(numbers, out.data());
    case source_format::bf16:
      store_bf16(numbers, out.data());
      return true;
    case source_format::q8_0:
      return store_q8_0(numbers, out.data());
    default:
      ensure(false, "a format that is not written");
  }
  return false;
}

}  // namespace tandem::formats
