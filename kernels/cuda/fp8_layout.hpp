// Where fp8 weights lie in a tile (weights.cuh), as functions that a host can run too. A group has
// 64 columns: 16 rows of 64 numbers, then 16 float32 scales, one a row: 1,088 bytes. Thread t of a
// quad owns 16 numbers of a row: columns 8t..8t+7 of the first 32, then of the second. Of each four
// the middle two change places, so that a word's even bytes are columns 0 and 1, its odd ones 2
// and 3.
#pragma once

#include "kernels/e4m3.hpp"

#include <cstddef>
#include <cstdint>

namespace tandem::kernels::cuda {

inline constexpr int fp8_group_columns = 64;
inline constexpr int fp8_group_bytes = 1088;

// Byte of column `i` (of four) in its word.
constexpr int fp8_byte_of(int i) { return i == 1 ? 2 : i == 2 ? 1 : i; }

// From a tile's begin to the eight numbers of row `row` from `column` on, a multiple of 8.
constexpr std::int64_t fp8_eight_at(int row, std::int64_t column) {
  const auto within = static_cast<int>(column % fp8_group_columns);
  return column / fp8_group_columns * fp8_group_bytes + row * 64 + within % 32 / 8 * 16 +
         within / 32 * 8;
}
constexpr std::int64_t fp8_number_at(int row, std::int64_t column) {
  const auto i = static_cast<int>(column % 8);
  return fp8_eight_at(row, column - i) + i / 4 * 4 + fp8_byte_of(i % 4);
}
constexpr std::int64_t fp8_scale_at(int row, std::int64_t column) {
  return column / fp8_group_columns * fp8_group_bytes + 1024 + row * 4;
}

// Puts 32 columns of a row, from column 32 * block on, into its place of a tile; zeros behind the
// last of `columns`. `row` is as cpu::row_encoder gives it: scales of 128 columns each, numbers;
// null: zeros.
constexpr void put_fp8_block(const std::byte* row, std::int64_t columns, std::int64_t block,
                             std::byte* tile, int lane) {
  const std::int64_t first = block * 32;
  const std::byte* const numbers =
      row == nullptr ? nullptr : row + (columns + fp8_block_columns - 1) / fp8_block_columns * 4;
  for (std::int64_t k = first; k < first + 32; ++k)
    tile[fp8_number_at(lane, k)] = row != nullptr && k < columns ? numbers[k] : std::byte{0};
  if (first % fp8_group_columns != 0) return;
  // The first 32 columns of a group bring its scale; they are never all behind the last column.
  for (int i = 0; i < 4; ++i)
    tile[fp8_scale_at(lane, first) + i] =
        row != nullptr ? row[first / fp8_block_columns * 4 + i] : std::byte{0};
}

// Columns 2i and 2i + 1 of eight as bf16_pair_of_e4m3 gives them; words as they lie in a tile.
constexpr std::uint32_t fp8_pair(std::uint32_t first_word, std::uint32_t second_word, int i) {
  return bf16_pair_of_e4m3(i < 2 ? first_word : second_word, i % 2 == 1);
}

}  // namespace tandem::kernels::cuda
