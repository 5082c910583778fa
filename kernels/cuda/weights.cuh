// Where a packed weight lies. Tiles of 16 outputs (of a gated matrix gate and up tiles alternate),
// each a run of groups of columns; the number of tiles is even and what pads rows and columns is
// zero. In a group every row has its columns side by side:
//   f32        1 column: 16 rows of a float (64 bytes); as on the CPU, see kernel_table.hpp.
//   f16, bf16  32 columns: 16 rows of 32 (1,024 bytes).
//   fp8        64 columns: 16 rows of 64 bytes, then 16 float32 scales (fp8_layout.hpp).
//   q8_0       64 columns: 16 rows of 64 bytes, then 16 x 2 scales (1,088 bytes).
//   q4_0, q4_1 128 columns: 16 rows of 64 bytes, then 16 x 4 scales, then of q4_1 as many minimums.
// So a row of all but f32 has 64 bytes in a group, and thread t of a quad owns 16 of them: of
// sixteen-bit weights columns 8t..8t+7; of quants columns 8t..8t+7 of each block of 32, block after
// block. That is the weights' operand of mma.sync as one load of 16 bytes a lane, 512 a warp: a sum
// over columns does not care in which order they come as long as the activations come alike. A word
// of nibbles has column i of its eight in the low half of byte i, i + 4 in the high one.
#pragma once

#include "kernels/backend.hpp"
#include "kernels/cuda/fp8_layout.hpp"

#include <cuda_fp16.h>
#include <vector_types.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tandem::kernels::cuda {

inline constexpr int tile_outputs = 16;

// Blocks of 32 columns whose activations are rounded to int8.
__host__ __device__ constexpr bool has_blocks(weight_format format) {
  return format == weight_format::q8_0 || format == weight_format::q4_0 ||
         format == weight_format::q4_1;
}
__host__ __device__ constexpr bool has_sixteen_bits(weight_format format) {
  return format == weight_format::f16 || format == weight_format::bf16;
}
__host__ __device__ constexpr bool has_nibbles(weight_format format) {
  return format == weight_format::q4_0 || format == weight_format::q4_1;
}
__host__ __device__ constexpr int group_columns(weight_format format) {
  if (format == weight_format::f32) return 1;
  if (format == weight_format::fp8) return fp8_group_columns;
  if (!has_blocks(format)) return 32;
  return has_nibbles(format) ? 128 : 64;
}
__host__ __device__ constexpr int group_bytes(weight_format format) {
  if (format == weight_format::f32) return 64;
  if (format == weight_format::fp8) return fp8_group_bytes;
  if (!has_blocks(format)) return 1024;
  if (format == weight_format::q8_0) return 1088;
  return format == weight_format::q4_0 ? 1152 : 1280;
}
// Blocks of 32 with a scale of their own, of each row of a group.
__host__ __device__ constexpr int group_blocks(weight_format format) {
  return has_blocks(format) ? group_columns(format) / 32 : 0;
}

__host__ __device__ constexpr std::int64_t tile_groups(weight_format format, std::int64_t columns) {
  const int each = group_columns(format);
  return (columns + each - 1) / each;
}
__host__ __device__ constexpr std::int64_t tile_bytes(weight_format format, std::int64_t columns) {
  return tile_groups(format, columns) * group_bytes(format);
}
// For a gated matrix of 2F rows as many as gate and up of F rows each need.
__host__ __device__ constexpr std::int64_t tiles_of(std::int64_t rows) {
  return (rows + 2 * tile_outputs - 1) / (2 * tile_outputs) * 2;
}

__host__ __device__ inline std::uint16_t load_u16(const std::byte* p) {
  return *reinterpret_cast<const std::uint16_t*>(p);
}
__host__ __device__ inline float float_of_half_bits(std::uint16_t bits) {
  __half_raw raw;
  raw.x = bits;
  return __half2float(__half(raw));
}
__host__ __device__ inline float float_of_bf16_bits(std::uint32_t bits) {
  const std::uint32_t wide = bits << 16;
  float value = 0.0F;
  memcpy(&value, &wide, sizeof value);
  return value;
}

// Eight neighbouring weights of one row of a tile as float32, zero behind the last of `columns`;
// `column` is a multiple of 8.
__host__ __device__ inline void load_eight(weight_format format, const std::byte* tile, int row,
                                           std::int64_t column, std::int64_t columns, float* out) {
  if (format == weight_format::f32) {
    const auto* const from = reinterpret_cast<const float*>(tile) + column * tile_outputs + row;
    for (int i = 0; i < 8; ++i) out[i] = column + i < columns ? from[i * tile_outputs] : 0.0F;
    return;
  }
  if (format == weight_format::fp8) {
    const uint2 words = *reinterpret_cast<const uint2*>(tile + fp8_eight_at(row, column));
    const float scale = *reinterpret_cast<const float*>(tile + fp8_scale_at(row, column));
    for (int i = 0; i < 8; ++i) {
      const std::uint32_t code = (i < 4 ? words.x : words.y) >> (8 * fp8_byte_of(i % 4)) & 0xFFU;
      out[i] = float_of_e4m3(static_cast<std::uint8_t>(code)) * scale;
    }
    return;
  }
  const int each = group_columns(format);
  const std::byte* const group = tile + column / each * group_bytes(format);
  const int within = static_cast<int>(column % each);
  if (!has_blocks(format)) {
    const uint4 words = *reinterpret_cast<const uint4*>(group + row * 64 + within * 2);
    const std::uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
    for (int i = 0; i < 8; ++i) {
      const std::uint32_t bits = i % 2 == 0 ? pairs[i / 2] & 0xFFFFU : pairs[i / 2] >> 16;
      out[i] = format == weight_format::f16 ? float_of_half_bits(static_cast<std::uint16_t>(bits))
                                            : float_of_bf16_bits(bits);
    }
    return;
  }
  const int blocks = group_blocks(format);
  const int block = within / 32;
  const int part = within % 32 / 8;
  const std::byte* const scales = group + 1024 + (row * blocks + block) * 2;
  const float scale = float_of_half_bits(load_u16(scales));
  const std::byte* const quants = group + row * 64 + part * 16 + block * (16 / blocks);
  if (format == weight_format::q8_0) {
    const uint2 words = *reinterpret_cast<const uint2*>(quants);
    for (int i = 0; i < 8; ++i) {
      const std::uint32_t byte = (i < 4 ? words.x : words.y) >> (i % 4 * 8) & 0xFFU;
      out[i] = scale * static_cast<float>(static_cast<std::int8_t>(byte));
    }
    return;
  }
  const bool has_least = format == weight_format::q4_1;
  const float least = has_least ? float_of_half_bits(load_u16(scales + 128)) : 0.0F;
  const std::uint32_t word = *reinterpret_cast<const std::uint32_t*>(quants);
  for (int i = 0; i < 8; ++i) {
    const int quant = static_cast<int>(word >> (i % 4 * 8 + i / 4 * 4) & 15U);
    out[i] = has_least ? scale * static_cast<float>(quant) + least
                       : scale * static_cast<float>(quant - 8);
  }
}

// Puts 32 columns of a row, from column 32 * block on, into its place of a tile. `row` is the whole
// row as cpu::row_encoder gives it, null: zeros.
__host__ __device__ inline void put_block(weight_format format, const std::byte* row,
                                          std::int64_t columns, std::int64_t block, std::byte* tile,
                                          int lane) {
  const std::int64_t first = block * 32;
  if (format == weight_format::f32) {
    for (std::int64_t k = first; k < first + 32 && k < columns; ++k) {
      reinterpret_cast<float*>(tile)[k * tile_outputs + lane] =
          row != nullptr ? reinterpret_cast<const float*>(row)[k] : 0.0F;
    }
    return;
  }
  if (format == weight_format::fp8) return put_fp8_block(row, columns, block, tile, lane);
  if (!has_blocks(format)) {
    auto* const to = reinterpret_cast<std::uint32_t*>(tile + block * 1024 + lane * 64);
    const auto at = [&](std::int64_t k) -> std::uint32_t {
      return row != nullptr && k < columns ? reinterpret_cast<const std::uint16_t*>(row)[k] : 0U;
    };
    for (int i = 0; i < 16; ++i) to[i] = at(first + 2 * i) | at(first + 2 * i + 1) << 16;
    return;
  }
  const int blocks = group_blocks(format);
  const int within = static_cast<int>(block % blocks);
  std::byte* const group = tile + block / blocks * group_bytes(format);
  std::byte* const scales = group + 1024 + (lane * blocks + within) * 2;
  std::byte* const quants = group + lane * 64 + within * (16 / blocks);
  const bool there = row != nullptr && first < columns;
  const int header = format == weight_format::q4_1 ? 4 : 2;
  const std::byte* const from =
      there ? row + block * (header + (has_nibbles(format) ? 16 : 32)) : nullptr;
  *reinterpret_cast<std::uint16_t*>(scales) = there ? load_u16(from) : std::uint16_t{0};
  if (header == 4) {
    *reinterpret_cast<std::uint16_t*>(scales + 128) = there ? load_u16(from + 2) : std::uint16_t{0};
  }
  const auto* const source = reinterpret_cast<const std::uint8_t*>(from) + header;
  if (!has_nibbles(format)) {
    for (int i = 0; i < 32; ++i) {
      quants[i / 8 * 16 + i % 8] = static_cast<std::byte>(there ? source[i] : 0);
    }
    return;
  }
  // A file keeps column i beside column 16 + i.
  const auto nibble = [&](int i) { return i < 16 ? source[i] & 15 : source[i - 16] >> 4; };
  for (int i = 0; i < 16; ++i) {
    const int low = i / 4 * 8 + i % 4;
    quants[i / 4 * 16 + i % 4] =
        static_cast<std::byte>(there ? nibble(low) | nibble(low + 4) << 4 : 0);
  }
}

}  // namespace tandem::kernels::cuda
