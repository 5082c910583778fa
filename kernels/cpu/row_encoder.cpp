#include "kernels/cpu/row_encoder.hpp"

#include "kernels/cpu/source_formats.hpp"
#include "kernels/e4m3.hpp"
#include "kernels/ensure.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace tandem::kernels::cpu {
namespace {

std::int64_t fp8_blocks(std::int64_t columns) {
  return (columns + fp8_block_columns - 1) / fp8_block_columns;
}

const float* scales_of(const scale_grid& grid, std::int64_t file_row) {
  return grid.data + (grid.first_row + file_row) / grid.rows * grid.stride;
}

// Numbers and grid as they are. A number that is NaN takes its 128 columns along: kernels know the
// others alone.
void copy_fp8(const scale_grid& grid, std::int64_t file_row, const std::byte* from,
              std::int64_t columns, std::byte* to) {
  const float* const scales = scales_of(grid, file_row);
  std::byte* const codes = to + fp8_blocks(columns) * 4;
  std::memcpy(codes, from, static_cast<std::size_t>(columns));
  for (std::int64_t b = 0; b < fp8_blocks(columns); ++b) {
    const std::byte* const begin = codes + b * fp8_block_columns;
    const std::byte* const end = codes + std::min(columns, (b + 1) * fp8_block_columns);
    float scale = scales[b * fp8_block_columns / grid.columns];
    if (std::any_of(begin, end,
                    [](std::byte c) { return is_nan_e4m3(std::to_integer<std::uint8_t>(c)); }))
      scale = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(to + 4 * b, &scale, 4);
  }
}

void encode_fp8(const float* values, std::int64_t columns, std::byte* to) {
  std::byte* const codes = to + fp8_blocks(columns) * 4;
  for (std::int64_t b = 0; b < fp8_blocks(columns); ++b) {
    const std::int64_t begin = b * fp8_block_columns;
    const std::int64_t end = std::min(columns, begin + fp8_block_columns);
    float largest = 0.0F;
    for (std::int64_t k = begin; k < end; ++k) {
      const float magnitude = std::fabs(values[k]);
      if (!(magnitude <= largest)) largest = magnitude;  // keeps NaN
      if (!std::isfinite(largest)) break;
    }
    const bool finite = std::isfinite(largest);
    const float scale = finite ? largest / largest_e4m3 : std::numeric_limits<float>::quiet_NaN();
    std::memcpy(to + 4 * b, &scale, 4);
    for (std::int64_t k = begin; k < end; ++k) {
      const bool zero = !finite || scale == 0.0F;
      codes[k] = static_cast<std::byte>(zero ? 0U : e4m3_of(values[k] / scale));
    }
  }
}

}  // namespace

std::int64_t encoded_row_bytes(weight_format format, std::int64_t columns) {
  if (format == weight_format::fp8) return (fp8_blocks(columns) * 4 + columns + 3) / 4 * 4;
  return static_cast<std::int64_t>(source_row_bytes(source_of(format), columns));
}

bool fits_fp8(const scale_grid& grid, std::int64_t columns) {
  return grid.columns % fp8_block_columns == 0 || grid.columns >= columns;
}

row_encoder::row_encoder(weight_format format, std::int64_t columns)
    : format_(format),
      columns_(columns),
      encoded_(static_cast<std::size_t>(encoded_row_bytes(format, columns))) {}

const std::byte* row_encoder::encode(const row_source& source, std::int64_t row) {
  ensure((source.format == source_format::e4m3) == (source.scales.data != nullptr),
         "scales of e4m3 and of nothing else");
  const std::int64_t file_row =
      source.order.empty() ? row : source.order[static_cast<std::size_t>(row)];
  const std::byte* const from =
      source.data + file_row * static_cast<std::int64_t>(source_row_bytes(source.format, columns_));
  const bool fp8 = format_ == weight_format::fp8;
  if (!fp8 && source.format == source_of(format_)) return from;
  if (fp8 && source.format == source_format::e4m3 && fits_fp8(source.scales, columns_)) {
    copy_fp8(source.scales, file_row, from, columns_, encoded_.data());
  } else if (source.format == source_format::q4_k && format_ == weight_format::q4_1) {
    split_q4_k_row(from, columns_, encoded_.data());
  } else {
    decode(source, file_row, from);
    if (fp8) {
      encode_fp8(values_.data(), columns_, encoded_.data());
    } else {
      encode_row(format_, values_.data(), columns_, encoded_.data());
    }
  }
  return encoded_.data();
}

void row_encoder::decode(const row_source& source, std::int64_t file_row, const std::byte* from) {
  values_.resize(static_cast<std::size_t>(columns_));
  decode_row(source.format, from, columns_, values_.data());
  if (source.format != source_format::e4m3) return;
  const float* const scales = scales_of(source.scales, file_row);
  for (std::int64_t k = 0; k < columns_; ++k)
    values_[static_cast<std::size_t>(k)] *= scales[k / source.scales.columns];
}

}  // namespace tandem::kernels::cpu
