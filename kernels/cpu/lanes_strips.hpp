// Strips of activations for products: int8 with scales for block formats, columns of all rows side
// by side for the others. The layouts are in kernel_table.hpp.
#pragma once

#include "kernels/cpu/kernel_table.hpp"
#include "kernels/cpu/lanes_math.hpp"

namespace tandem::kernels::cpu {

template <class L>
void quantize_strip(const float* x, std::int64_t stride, int rows, std::int64_t columns,
                    std::int64_t blocks, weight_format format, std::byte* out) {
  for (std::int64_t b = 0; b < blocks; ++b, out += rows * (block_columns + 8)) {
    std::byte* scales = out + rows * block_columns;
    std::byte* words = scales + rows * 4;
    for (int r = 0; r < rows; ++r) {
      std::byte* quants = out + r * block_columns;
      float scale = 0.0F;
      std::int32_t sum = 0;
      auto low = L::zero();
      auto high = L::zero();
      if (b * block_columns < columns) {
        low = L::load(x + r * stride + b * block_columns);
        high = L::load(x + r * stride + b * block_columns + 16);
      }
      const float largest = L::largest(L::greater(L::magnitude(low), L::magnitude(high)));
      // Below 1e-30 the inverse would not be finite.
      const float inverse = largest > 1e-30F ? 127.0F / largest : 0.0F;
      scale = largest > 1e-30F ? largest / 127.0F : 0.0F;
      const auto low_quants = L::to_ints(L::multiply(low, L::all(inverse)));
      const auto high_quants = L::to_ints(L::multiply(high, L::all(inverse)));
      L::store_int8(quants, low_quants);
      L::store_int8(quants + 16, high_quants);
      sum = L::sum_ints(L::add_ints(low_quants, high_quants));
      std::memcpy(scales + 4 * r, &scale, 4);
      if (format == weight_format::q4_1) {
        const float scaled = scale * static_cast<float>(sum);
        std::memcpy(words + 4 * r, &scaled, 4);
      } else {
        const std::int32_t offset = (format == weight_format::q8_0 ? -128 : -8) * sum;
        std::memcpy(words + 4 * r, &offset, 4);
      }
    }
  }
}

template <class L>
void interleave_strip(const float* x, std::int64_t stride, int rows, std::int64_t columns,
                      float* out) {
  std::int64_t k = 0;
  // Vectors reach over what comes behind them, which is written later: there must be enough of it.
  for (; (columns - k - 16) * rows >= 16 - rows && k + 16 <= columns; k += 16) {
    L::turn(x + k, stride, rows, out + k * rows, rows);
  }
  for (; k < columns; ++k) {
    for (int r = 0; r < rows; ++r) out[k * rows + r] = x[r * stride + k];
  }
}

}  // namespace tandem::kernels::cpu
