#include "kernels/cpu/pack.hpp"

#include "kernels/cpu/half.hpp"
#include "kernels/cpu/kernel_table.hpp"
#include "kernels/cpu/source_formats.hpp"
#include "kernels/e4m3.hpp"
#include "kernels/ensure.hpp"

#include <algorithm>
#include <cstring>

namespace tandem::kernels::cpu {
namespace {

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

std::int64_t float_bytes(weight_format format) { return format == weight_format::f32 ? 4 : 2; }

// Where one block's 16 or 32 quant bytes and its scales start inside a panel; lane 0.
struct block_place {
  std::int64_t quants;
  std::int64_t scales;
  int quant_vectors;  // dwords of quants per lane, 64 bytes apart
};

block_place place_of(weight_format format, std::int64_t block) {
  const std::int64_t pair = block / 2;
  const std::int64_t half = block % 2;
  switch (format) {
    case weight_format::q4_1:
      return {block * q4_1_record_bytes, block * q4_1_record_bytes + 256, 4};
    case weight_format::q4_0:
      return {pair * q4_0_record_bytes + half * 256, pair * q4_0_record_bytes + 512 + half * 32, 4};
    case weight_format::q8_0:
      return {pair * q8_0_record_bytes + half * 512, pair * q8_0_record_bytes + 1024 + half * 32,
              8};
    default:
      ensure(false, "a block format");
      return {};
  }
}

// Quants of q8_0 are kept with 128 added: vpdpbusd takes unsigned weights.
std::uint32_t quant_flip(weight_format format) {
  return format == weight_format::q8_0 ? 0x80808080U : 0U;
}

std::int64_t header_bytes(weight_format format) { return format == weight_format::q4_1 ? 4 : 2; }

}  // namespace

bool is_block_format(weight_format format) {
  return format == weight_format::q8_0 || format == weight_format::q4_0 ||
         format == weight_format::q4_1;
}

panel_layout panel_layout::of(weight_format format, std::int64_t rows, std::int64_t columns) {
  panel_layout layout;
  layout.panels = round_up(rows, std::int64_t{2} * panel_outputs) / panel_outputs;
  if (format == weight_format::fp8) {
    const std::int64_t scales = round_up(columns, fp8_block_columns) / fp8_block_columns * 64;
    layout.panel_bytes = round_up(scales + columns * panel_outputs, 64);
    return layout;
  }
  if (!is_block_format(format)) {
    layout.panel_bytes = round_up(columns * panel_outputs * float_bytes(format), 64);
    return layout;
  }
  ensure(columns % block_columns == 0, "block formats want whole blocks of 32 columns");
  layout.blocks = columns / block_columns;
  if (format == weight_format::q4_1) {
    layout.panel_bytes = layout.blocks * q4_1_record_bytes;
    return layout;
  }
  layout.blocks = round_up(layout.blocks, 2);
  layout.panel_bytes =
      layout.blocks / 2 * (format == weight_format::q8_0 ? q8_0_record_bytes : q4_0_record_bytes);
  return layout;
}

row_packer::row_packer(const packed_matrix& target)
    : target_(target),
      layout_(panel_layout::of(target.format, target.rows, target.columns)),
      encoder_(target.format, target.columns) {}

void row_packer::put(panel_place place, const row_source& source, std::int64_t row) {
  put_encoded(place, encoder_.encode(source, row));
}

void row_packer::put_zeros(panel_place place) {
  const std::vector<std::byte> zeros(
      static_cast<std::size_t>(encoded_row_bytes(target_.format, target_.columns)));
  put_encoded(place, zeros.data());
}

void row_packer::put_fp8(std::byte* panel, std::int64_t lane, const std::byte* row) {
  const std::byte* code = row + round_up(target_.columns, fp8_block_columns) / 32;
  for (std::int64_t k = 0; k < target_.columns; k += fp8_block_columns, row += 4) {
    std::byte* const record = panel + k / fp8_block_columns * fp8_record_bytes;
    std::memcpy(record + 4 * lane, row, 4);
    std::byte* const codes = record + 64 + lane;
    const std::int64_t count = std::min(target_.columns - k, fp8_block_columns);
    for (std::int64_t i = 0; i < count; ++i) codes[i * panel_outputs] = *code++;
  }
}

void row_packer::put_encoded(panel_place place, const std::byte* row) {
  std::byte* panel = target_.data + place.panel * layout_.panel_bytes;
  const std::int64_t lane = place.lane;
  if (target_.format == weight_format::fp8) return put_fp8(panel, lane, row);
  if (!is_block_format(target_.format)) {
    const std::int64_t bytes = float_bytes(target_.format);
    std::byte* to = panel + lane * bytes;
    const std::int64_t step = panel_outputs * bytes;
    if (bytes == 4) {
      for (std::int64_t k = 0; k < target_.columns; ++k) std::memcpy(to + k * step, row + 4 * k, 4);
    } else {
      for (std::int64_t k = 0; k < target_.columns; ++k) std::memcpy(to + k * step, row + 2 * k, 2);
    }
    return;
  }
  const std::uint32_t flip = quant_flip(target_.format);
  const std::int64_t header = header_bytes(target_.format);
  const std::int64_t filled = target_.columns / block_columns;
  for (std::int64_t b = 0; b < layout_.blocks; ++b) {
    const block_place at = place_of(target_.format, b);
    std::byte* quants = panel + at.quants + 4 * lane;
    std::byte* scales = panel + at.scales + 2 * lane;
    if (b >= filled) {  // padding: scale 0, quants 0
      std::memset(scales, 0, 2);
      for (int j = 0; j < at.quant_vectors; ++j) std::memcpy(quants + 64 * j, &flip, 4);
      continue;
    }
    std::memcpy(scales, row, 2);
    if (header == 4) std::memcpy(scales + 32, row + 2, 2);
    row += header;
    for (int j = 0; j < at.quant_vectors; ++j, row += 4) {
      std::uint32_t dword = 0;
      std::memcpy(&dword, row, 4);
      dword ^= flip;
      std::memcpy(quants + 64 * j, &dword, 4);
    }
  }
}

void unpack(const packed_matrix& source, panel_place place, float* out) {
  const panel_layout layout = panel_layout::of(source.format, source.rows, source.columns);
  const std::byte* panel = source.data + place.panel * layout.panel_bytes;
  const std::int64_t lane = place.lane;
  if (source.format == weight_format::fp8) {
    for (std::int64_t k = 0; k < source.columns; ++k) {
      const std::byte* const record = panel + k / fp8_block_columns * fp8_record_bytes;
      float scale = 0.0F;
      std::memcpy(&scale, record + 4 * lane, 4);
      const std::byte code = record[64 + k % fp8_block_columns * panel_outputs + lane];
      out[k] = float_of_e4m3(std::to_integer<std::uint8_t>(code)) * scale;
    }
    return;
  }
  if (!is_block_format(source.format)) {
    const std::int64_t bytes = float_bytes(source.format);
    const std::byte* from = panel + lane * bytes;
    if (bytes == 4) {
      for (std::int64_t k = 0; k < source.columns; ++k)
        std::memcpy(out + k, from + k * panel_outputs * bytes, sizeof(float));
      return;
    }
    for (std::int64_t k = 0; k < source.columns; ++k) {
      decode_row(source_of(source.format), from + k * panel_outputs * bytes, 1, out + k);
    }
    return;
  }
  const std::uint32_t flip = quant_flip(source.format);
  const std::int64_t header = header_bytes(source.format);
  for (std::int64_t b = 0; b < source.columns / block_columns; ++b) {
    const block_place at = place_of(source.format, b);
    std::byte block[34];
    std::memcpy(block, panel + at.scales + 2 * lane, 2);
    if (header == 4) std::memcpy(block + 2, panel + at.scales + 32 + 2 * lane, 2);
    for (int j = 0; j < at.quant_vectors; ++j) {
      std::uint32_t dword = 0;
      std::memcpy(&dword, panel + at.quants + 64 * j + 4 * lane, 4);
      dword ^= flip;
      std::memcpy(block + header + 4 * j, &dword, 4);
    }
    decode_row(source_of(source.format), block, block_columns, out + b * block_columns);
  }
}

}  // namespace tandem::kernels::cpu
