#include "kernels/cpu/source_formats.hpp"

#include "kernels/cpu/half.hpp"
#include "kernels/e4m3.hpp"
#include "kernels/ensure.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace tandem::kernels {
namespace {

struct block_size {
  int columns;
  int bytes;
};

// Block layouts as published in ggml (ggml-common.h).
block_size block_size_of(source_format format) {
  switch (format) {
    case source_format::f32:
      return {1, 4};
    case source_format::f16:
    case source_format::bf16:
      return {1, 2};
    case source_format::q8_0:
      return {32, 34};
    case source_format::q4_0:
      return {32, 18};
    case source_format::q4_1:
      return {32, 20};
    case source_format::q5_0:
      return {32, 22};
    case source_format::q5_1:
      return {32, 24};
    case source_format::q4_k:
      return {256, 144};
    case source_format::q5_k:
      return {256, 176};
    case source_format::q6_k:
      return {256, 210};
    case source_format::e4m3:
      return {1, 1};
  }
  ensure(false, "unknown source format");
  return {1, 1};
}

}  // namespace

std::size_t source_row_bytes(source_format format, std::int64_t columns) {
  const block_size size = block_size_of(format);
  if (columns < 0 || columns % size.columns != 0) return 0;
  return static_cast<std::size_t>(columns / size.columns * size.bytes);
}

weight_format native_format(source_format format) {
  switch (format) {
    case source_format::f32:
      return weight_format::f32;
    case source_format::f16:
      return weight_format::f16;
    case source_format::bf16:
      return weight_format::bf16;
    case source_format::q4_0:
      return weight_format::q4_0;
    case source_format::q4_1:
    case source_format::q4_k:
      return weight_format::q4_1;
    case source_format::q8_0:
    case source_format::q5_0:
    case source_format::q5_1:
    case source_format::q5_k:
    case source_format::q6_k:
      return weight_format::q8_0;
    case source_format::e4m3:
      return weight_format::fp8;
  }
  ensure(false, "unknown source format");
  return weight_format::f32;
}

}  // namespace tandem::kernels

namespace tandem::kernels::cpu {
namespace {

using byte_pointer = const std::uint8_t*;

std::uint16_t load_u16(byte_pointer p) {
  std::uint16_t value = 0;
  std::memcpy(&value, p, sizeof value);
  return value;
}

void store_u16(std::uint8_t* p, std::uint16_t value) { std::memcpy(p, &value, sizeof value); }

float load_half(byte_pointer p) { return float_of_half(load_u16(p)); }

std::uint32_t load_u32(byte_pointer p) {
  std::uint32_t value = 0;
  std::memcpy(&value, p, sizeof value);
  return value;
}

void decode_q8_0(byte_pointer block, float* out) {
  const float d = load_half(block);
  for (int i = 0; i < 32; ++i) {
    out[i] = d * static_cast<float>(static_cast<std::int8_t>(block[2 + i]));
  }
}

void decode_q4_0(byte_pointer block, float* out) {
  const float d = load_half(block);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((block[2 + i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((block[2 + i] >> 4) - 8);
  }
}

void decode_q4_1(byte_pointer block, float* out) {
  const float d = load_half(block);
  const float m = load_half(block + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(block[4 + i] & 15) + m;
    out[i + 16] = d * static_cast<float>(block[4 + i] >> 4) + m;
  }
}

// The fifth bits of 32 quants lie in one 32-bit word.
void decode_fives(byte_pointer nibbles, std::uint32_t high, int* quants) {
  for (int i = 0; i < 16; ++i) {
    quants[i] = (nibbles[i] & 15) | static_cast<int>(((high >> i) & 1U) << 4);
    quants[i + 16] = (nibbles[i] >> 4) | static_cast<int>(((high >> (i + 16)) & 1U) << 4);
  }
}

void decode_q5_0(byte_pointer block, float* out) {
  const float d = load_half(block);
  std::array<int, 32> quants{};
  decode_fives(block + 6, load_u32(block + 2), quants.data());
  for (std::size_t i = 0; i < 32; ++i) out[i] = d * static_cast<float>(quants[i] - 16);
}

void decode_q5_1(byte_pointer block, float* out) {
  const float d = load_half(block);
  const float m = load_half(block + 2);
  std::array<int, 32> quants{};
  decode_fives(block + 8, load_u32(block + 4), quants.data());
  for (std::size_t i = 0; i < 32; ++i) out[i] = d * static_cast<float>(quants[i]) + m;
}

struct scale_min {
  int scale;
  int min;
};

// Eight six-bit scales and eight six-bit minimums in twelve bytes.
scale_min sub_block(byte_pointer packed, int index) {
  if (index < 4) return {packed[index] & 63, packed[index + 4] & 63};
  return {(packed[index + 4] & 15) | ((packed[index - 4] >> 6) << 4),
          (packed[index + 4] >> 4) | ((packed[index] >> 6) << 4)};
}

void decode_q4_k(byte_pointer block, float* out) {
  const float d = load_half(block);
  const float d_min = load_half(block + 2);
  for (int s = 0; s < 8; ++s) {
    const scale_min sub = sub_block(block + 4, s);
    const float scale = d * static_cast<float>(sub.scale);
    const float min = d_min * static_cast<float>(sub.min);
    byte_pointer nibbles = block + 16 + s / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int quant = s % 2 == 0 ? nibbles[i] & 15 : nibbles[i] >> 4;
      out[32 * s + i] = scale * static_cast<float>(quant) - min;
    }
  }
}

void decode_q5_k(byte_pointer block, float* out) {
  const float d = load_half(block);
  const float d_min = load_half(block + 2);
  byte_pointer high = block + 16;
  for (int s = 0; s < 8; ++s) {
    const scale_min sub = sub_block(block + 4, s);
    const float scale = d * static_cast<float>(sub.scale);
    const float min = d_min * static_cast<float>(sub.min);
    byte_pointer nibbles = block + 48 + s / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int quant =
          (s % 2 == 0 ? nibbles[i] & 15 : nibbles[i] >> 4) | (((high[i] >> s) & 1) << 4);
      out[32 * s + i] = scale * static_cast<float>(quant) - min;
    }
  }
}

void decode_q6_k(byte_pointer block, float* out) {
  const float d = load_half(block + 208);
  for (int half = 0; half < 2; ++half) {
    byte_pointer low = block + 64 * half;
    byte_pointer high = block + 128 + 32 * half;
    byte_pointer scales = block + 192 + 8 * half;
    for (int part = 0; part < 4; ++part) {
      for (int i = 0; i < 32; ++i) {
        const int byte = low[i + 32 * (part % 2)];
        const int quant =
            ((part < 2 ? byte & 15 : byte >> 4) | (((high[i] >> (2 * part)) & 3) << 4)) - 32;
        const auto scale = static_cast<std::int8_t>(scales[i / 16 + 2 * part]);
        out[128 * half + 32 * part + i] = d * static_cast<float>(scale) * static_cast<float>(quant);
      }
    }
  }
}

void decode_block(source_format format, byte_pointer block, float* out) {
  switch (format) {
    case source_format::f32:
      std::memcpy(out, block, sizeof(float));
      return;
    case source_format::f16:
      *out = load_half(block);
      return;
    case source_format::bf16:
      *out = float_of_bf16(load_u16(block));
      return;
    case source_format::q8_0:
      return decode_q8_0(block, out);
    case source_format::q4_0:
      return decode_q4_0(block, out);
    case source_format::q4_1:
      return decode_q4_1(block, out);
    case source_format::q5_0:
      return decode_q5_0(block, out);
    case source_format::q5_1:
      return decode_q5_1(block, out);
    case source_format::q4_k:
      return decode_q4_k(block, out);
    case source_format::q5_k:
      return decode_q5_k(block, out);
    case source_format::q6_k:
      return decode_q6_k(block, out);
    case source_format::e4m3:
      *out = float_of_e4m3(*block);
      return;
  }
}

// A checkpoint may hold anything, NaN included: it must still become some quant.
std::uint8_t to_quant(float value, float most) {
  return static_cast<std::uint8_t>(value >= 0.0F ? std::min(value, most) : 0.0F);
}

void encode_q8_0(const float* x, std::uint8_t* block) {
  float largest = 0.0F;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float d = largest / 127.0F;
  const float inverse = d != 0.0F ? 1.0F / d : 0.0F;
  store_u16(block, half_of(d));
  for (int i = 0; i < 32; ++i) {
    const float rounded = std::round(x[i] * inverse);
    const float quant = std::isnan(rounded) ? 0.0F : std::clamp(rounded, -127.0F, 127.0F);
    block[2 + i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(quant));
  }
}

void encode_q4_0(const float* x, std::uint8_t* block) {
  float largest = 0.0F;
  float extreme = 0.0F;
  for (int i = 0; i < 32; ++i) {
    if (std::fabs(x[i]) > largest) {
      largest = std::fabs(x[i]);
      extreme = x[i];
    }
  }
  const float d = extreme / -8.0F;
  const float inverse = d != 0.0F ? 1.0F / d : 0.0F;
  store_u16(block, half_of(d));
  for (int i = 0; i < 16; ++i) {
    const int low = to_quant(x[i] * inverse + 8.5F, 15.0F);
    const int high = to_quant(x[i + 16] * inverse + 8.5F, 15.0F);
    block[2 + i] = static_cast<std::uint8_t>(low | (high << 4));
  }
}

void encode_q4_1(const float* x, std::uint8_t* block) {
  const auto [least, most] = std::minmax_element(x, x + 32);
  const float min = *least;
  const float d = (*most - min) / 15.0F;
  const float inverse = d != 0.0F ? 1.0F / d : 0.0F;
  store_u16(block, half_of(d));
  store_u16(block + 2, half_of(min));
  for (int i = 0; i < 16; ++i) {
    const int low = to_quant((x[i] - min) * inverse + 0.5F, 15.0F);
    const int high = to_quant((x[i + 16] - min) * inverse + 0.5F, 15.0F);
    block[4 + i] = static_cast<std::uint8_t>(low | (high << 4));
  }
}

byte_pointer bytes_of(const std::byte* p) { return reinterpret_cast<byte_pointer>(p); }
std::uint8_t* bytes_of(std::byte* p) { return reinterpret_cast<std::uint8_t*>(p); }

}  // namespace

void decode_row(source_format format, const std::byte* row, std::int64_t columns, float* out) {
  ensure(columns == 0 || source_row_bytes(format, columns) > 0, "a row of whole blocks");
  if (format == source_format::f32) {
    std::memcpy(out, row, source_row_bytes(format, columns));
    return;
  }
  const block_size size = block_size_of(format);
  byte_pointer block = bytes_of(row);
  for (std::int64_t c = 0; c < columns; c += size.columns, block += size.bytes) {
    decode_block(format, block, out + c);
  }
}

source_format source_of(weight_format format) {
  switch (format) {
    case weight_format::f32:
      return source_format::f32;
    case weight_format::f16:
      return source_format::f16;
    case weight_format::bf16:
      return source_format::bf16;
    case weight_format::fp8:
      return source_format::e4m3;
    case weight_format::q8_0:
      return source_format::q8_0;
    case weight_format::q4_0:
      return source_format::q4_0;
    case weight_format::q4_1:
      return source_format::q4_1;
  }
  ensure(false, "unknown weight format");
  return source_format::f32;
}

void encode_row(weight_format format, const float* values, std::int64_t columns, std::byte* row) {
  const block_size size = block_size_of(source_of(format));
  ensure(columns % size.columns == 0, "a row of whole blocks");
  ensure(format != weight_format::fp8, "a format that keeps a row's scales within it");
  std::uint8_t* block = bytes_of(row);
  for (std::int64_t c = 0; c < columns; c += size.columns, block += size.bytes) {
    switch (format) {
      case weight_format::f32:
        std::memcpy(block, values + c, sizeof(float));
        break;
      case weight_format::f16:
        store_u16(block, half_of(values[c]));
        break;
      case weight_format::bf16:
        store_u16(block, bf16_of(values[c]));
        break;
      case weight_format::fp8:
        break;
      case weight_format::q8_0:
        encode_q8_0(values + c, block);
        break;
      case weight_format::q4_0:
        encode_q4_0(values + c, block);
        break;
      case weight_format::q4_1:
        encode_q4_1(values + c, block);
        break;
    }
  }
}

void split_q4_k_row(const std::byte* row, std::int64_t columns, std::byte* q4_1_row) {
  ensure(columns % 256 == 0, "a q4_k row of whole blocks");
  byte_pointer block = bytes_of(row);
  std::uint8_t* out = bytes_of(q4_1_row);
  for (std::int64_t c = 0; c < columns; c += 256, block += 144) {
    const float d = load_half(block);
    const float d_min = load_half(block + 2);
    for (int s = 0; s < 8; ++s, out += 20) {
      const scale_min sub = sub_block(block + 4, s);
      store_u16(out, half_of(d * static_cast<float>(sub.scale)));
      store_u16(out + 2, half_of(-(d_min * static_cast<float>(sub.min))));
      byte_pointer nibbles = block + 16 + s / 2 * 32;
      const int shift = s % 2 == 0 ? 0 : 4;
      for (int i = 0; i < 16; ++i) {
        const int low = (nibbles[i] >> shift) & 15;
        const int high = (nibbles[i + 16] >> shift) & 15;
        out[4 + i] = static_cast<std::uint8_t>(low | (high << 4));
      }
    }
  }
}

}  // namespace tandem::kernels::cpu
