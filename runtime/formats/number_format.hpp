// Float32 numbers as files store them: the same, halves of either kind rounded to nearest even, or
// ggml's blocks of 32 (Q8_0: a half-precision scale and 32 signed bytes).
#pragma once

#include "kernels/backend.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace tandem::formats {

// f32, f16, bf16 or q8_0.
std::optional<kernels::source_format> stored_format_from(std::string_view name);
std::string_view name_of(kernels::source_format format);

// Writes numbers.size() numbers to `out`, which has source_row_bytes(format, size) bytes. False
// where a finite number is too large for f16.
bool store_numbers(kernels::source_format format, std::span<const float> numbers,
                   std::span<std::byte> out);

}  // namespace tandem::formats
