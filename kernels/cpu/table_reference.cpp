// The plain kernels: what every other variant must match. One row and one output at a time, in the
// order of the formulas; strips are one row high.
#include "kernels/cpu/half.hpp"
#include "kernels/cpu/kernel_table.hpp"
#include "kernels/cpu/reference_training.hpp"
#include "kernels/e4m3.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tandem::kernels::cpu {
namespace {

template <class T>
T load(const std::byte* p) {
  T value{};
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <class T>
void store(std::byte* p, T value) {
  std::memcpy(p, &value, sizeof value);
}

float load_half(const std::byte* p) { return float_of_half(load<std::uint16_t>(p)); }

// --- activations -------------------------------------------------------------------------------

// int8 with one scale per 32: d = largest / 127, rounded to nearest even.
void quantize_strip(const float* x, std::int64_t, int, std::int64_t columns, std::int64_t blocks,
                    weight_format format, std::byte* out) {
  for (std::int64_t b = 0; b < blocks; ++b, x += block_columns, out += block_columns + 8) {
    float largest = 0.0F;
    if (b * block_columns < columns) {
      for (int i = 0; i < block_columns; ++i) largest = std::max(largest, std::fabs(x[i]));
    }
    // Below this the inverse would not be finite.
    const bool zero = !(largest > 1e-30F);
    const float scale = zero ? 0.0F : largest / 127.0F;
    const float inverse = zero ? 0.0F : 127.0F / largest;
    std::int32_t sum = 0;
    for (int i = 0; i < block_columns; ++i) {
      const auto quant = static_cast<std::int8_t>(zero ? 0L : std::lrint(x[i] * inverse));
      out[i] = static_cast<std::byte>(quant);
      sum += quant;
    }
    store(out + block_columns, scale);
    switch (format) {
      case weight_format::q8_0:
        store(out + block_columns + 4, -128 * sum);
        break;
      case weight_format::q4_0:
        store(out + block_columns + 4, -8 * sum);
        break;
      default:
        store(out + block_columns + 4, scale * static_cast<float>(sum));
        break;
    }
  }
}

void interleave_strip(const float* x, std::int64_t, int, std::int64_t columns, float* out) {
  std::copy_n(x, columns, out);
}

// --- products ----------------------------------------------------------------------------------

// sum over 32 k of quant * activation; `vectors` is 4 for nibbles, 8 for bytes.
std::int32_t dot_block(const std::byte* quants, int vectors, const std::byte* activations) {
  std::int32_t sum = 0;
  for (int j = 0; j < vectors; ++j) {
    for (int i = 0; i < 4; ++i) {
      const int quant = std::to_integer<int>(quants[64 * j + i]);
      const auto at = [&](int k) { return static_cast<std::int8_t>(activations[k]); };
      if (vectors == 8) {
        sum += quant * at(4 * j + i);
      } else {
        sum += (quant & 15) * at(4 * j + i) + (quant >> 4) * at(16 + 4 * j + i);
      }
    }
  }
  return sum;
}

float dot_q4_1(const std::byte* panel, std::int64_t blocks, int lane, const std::byte* strip) {
  float sum = 0.0F;
  for (std::int64_t b = 0; b < blocks; ++b, panel += q4_1_record_bytes, strip += 40) {
    const float scale = load_half(panel + 256 + 2 * lane);
    const float min = load_half(panel + 288 + 2 * lane);
    const auto product = static_cast<float>(dot_block(panel + 4 * lane, 4, strip));
    sum += min * load<float>(strip + 36);
    sum += product * scale * load<float>(strip + 32);
  }
  return sum;
}

float dot_pairs(weight_format format, const std::byte* panel, std::int64_t blocks, int lane,
                const std::byte* strip) {
  const bool bytes = format == weight_format::q8_0;
  const std::int64_t record = bytes ? q8_0_record_bytes : q4_0_record_bytes;
  const int quants = bytes ? 512 : 256;
  float sum = 0.0F;
  for (std::int64_t b = 0; b < blocks; ++b, strip += 40) {
    const std::byte* at = panel + b / 2 * record;
    const std::int64_t half = b % 2;
    const float scale = load_half(at + 2 * quants + 32 * half + 2 * lane);
    const std::int32_t product = dot_block(at + quants * half + 4 * lane, bytes ? 8 : 4, strip) +
                                 load<std::int32_t>(strip + 36);
    sum += static_cast<float>(product) * scale * load<float>(strip + 32);
  }
  return sum;
}

float weight_at(weight_format format, const std::byte* panel, std::int64_t k, int lane) {
  const std::int64_t index = k * panel_outputs + lane;
  switch (format) {
    case weight_format::fp8: {
      const std::byte* record = panel + k / fp8_block_columns * fp8_record_bytes;
      const std::byte code = record[64 + k % fp8_block_columns * panel_outputs + lane];
      return float_of_e4m3(std::to_integer<std::uint8_t>(code)) * load<float>(record + 4 * lane);
    }
    case weight_format::f16:
      return load_half(panel + 2 * index);
    case weight_format::bf16:
      return float_of_bf16(load<std::uint16_t>(panel + 2 * index));
    default:
      return load<float>(panel + 4 * index);
  }
}

// Columns [begin, end) of one float product.
float chain(const product_task& task, const std::byte* panel, int lane, const std::byte* strip,
            std::int64_t begin, std::int64_t end) {
  float sum = 0.0F;
  for (std::int64_t k = begin; k < end; ++k) {
    sum += load<float>(strip + 4 * k) * weight_at(task.format, panel, k, lane);
  }
  return sum;
}

float segment_tree(const product_task& task, const std::byte* panel, int lane,
                   const std::byte* strip, std::int64_t begin, std::int64_t end) {
  if (end - begin == 1) {
    const row_segment& segment = task.segments[begin];
    return chain(task, panel, lane, strip, segment.first_row,
                 segment.first_row + segment.row_count);
  }
  const std::int64_t middle = (begin + end) / 2;
  return segment_tree(task, panel, lane, strip, begin, middle) +
         segment_tree(task, panel, lane, strip, middle, end);
}

float dot(const product_task& task, std::int64_t panel_index, int lane, const std::byte* strip) {
  const std::byte* panel = task.weights + panel_index * task.panel_bytes;
  switch (task.format) {
    case weight_format::q4_1:
      return dot_q4_1(panel, task.blocks, lane, strip);
    case weight_format::q4_0:
    case weight_format::q8_0:
      return dot_pairs(task.format, panel, task.blocks, lane, strip);
    default:
      break;
  }
  if (task.segment_count > 0) {
    return segment_tree(task, panel, lane, strip, 0, task.segment_count);
  }
  return chain(task, panel, lane, strip, 0, task.columns);
}

float activate(activation act, float x) {
  if (act == activation::silu) return x / (1.0F + std::exp(-x));
  const float inner = 0.7978845608F * (x + 0.044715F * x * x * x);
  return 0.5F * x * (1.0F + std::tanh(inner));
}

void product(const product_task& task, std::int64_t panel_begin, std::int64_t panel_end) {
  for (std::int64_t s = 0; s < task.strip_count; ++s) {
    const std::byte* strip = task.activations + task.strips[s].first_row * task.row_bytes;
    float* out = task.out + task.strips[s].first_row * task.out_stride;
    for (std::int64_t p = panel_begin; p < panel_end; p += task.gated ? 2 : 1) {
      for (int lane = 0; lane < panel_outputs; ++lane) {
        const std::int64_t output = (task.gated ? p / 2 : p) * panel_outputs + lane;
        if (output >= task.outputs) break;
        float& to = out[(task.gated ? p / 2 : p) * task.out_panel_stride + lane];
        const float y = dot(task, p, lane, strip);
        if (task.gated) {
          to = activate(task.act, y) * dot(task, p + 1, lane, strip);
          continue;
        }
        const float with_bias = task.bias != nullptr ? y + task.bias[output] : y;
        to = task.add ? to + with_bias : with_bias;
      }
    }
  }
}

// --- rows --------------------------------------------------------------------------------------

void rms_norm(const float* x, const float* w, float eps, std::int64_t columns, bool add, float* y) {
  float squares = 0.0F;
  for (std::int64_t i = 0; i < columns; ++i) squares += x[i] * x[i];
  const float inverse = 1.0F / std::sqrt(squares / static_cast<float>(columns) + eps);
  for (std::int64_t i = 0; i < columns; ++i) {
    const float normed = x[i] * inverse * w[i];
    y[i] = add ? y[i] + normed : normed;
  }
}

void turn(const rope_task& task, float* head) {
  const int half = task.rotary_size / 2;
  for (int i = 0; i < half; ++i) {
    const float cosine = task.cos_sin[i];
    const float sine = task.cos_sin[half + i];
    const float a = head[i];
    const float b = head[half + i];
    head[i] = a * cosine - b * sine;
    head[half + i] = b * cosine + a * sine;
  }
}

void store_kv(kv_format format, std::byte* base, std::int64_t index, float value) {
  if (format == kv_format::f32) {
    store(base + 4 * index, value);
  } else {
    store(base + 2 * index, half_of(value));
  }
}

float load_kv(kv_format format, const std::byte* base, std::int64_t index) {
  return format == kv_format::f32 ? load<float>(base + 4 * index) : load_half(base + 2 * index);
}

std::int64_t value_stride(int head_size) { return (head_size + 15) / 16 * 16; }

void rope_store(const rope_task& task) {
  const int H = task.head_size;
  for (int n = 0; n < task.query_heads; ++n) {
    float* query = task.qkv + std::int64_t{n} * H;
    if (task.query_norm != nullptr) {
      rms_norm(query, task.query_norm, task.eps, H, false, query);
    }
    turn(task, query);
  }
  for (int g = 0; g < task.key_heads; ++g) {
    float* key = task.qkv + std::int64_t{task.query_heads + g} * H;
    if (task.key_norm != nullptr) rms_norm(key, task.key_norm, task.eps, H, false, key);
    turn(task, key);
    const float* value = key + std::int64_t{task.key_heads} * H;
    std::byte* head = task.block + g * task.head_bytes;
    const std::int64_t values = std::int64_t{kv_block_positions} * H;
    for (int h = 0; h < H; ++h) {
      store_kv(task.format, head, std::int64_t{h} * kv_block_positions + task.slot, key[h]);
      store_kv(task.format, head, values + task.slot * value_stride(H) + h, value[h]);
    }
  }
}

// --- attention ---------------------------------------------------------------------------------

float score(const attention_task& task, const float* query, const std::byte* head, int slot) {
  float sum = 0.0F;
  for (int h = 0; h < task.head_size; ++h) {
    sum += query[h] * task.scale *
           load_kv(task.format, head, std::int64_t{h} * kv_block_positions + slot);
  }
  return task.softcap > 0.0F ? task.softcap * std::tanh(sum / task.softcap) : sum;
}

void attend(const attention_task& task) {
  const int P = kv_block_positions;
  const int H = task.head_size;
  for (int q = 0; q < task.count; ++q) {
    const auto head_at = [&](std::int32_t position) {
      return task.base + task.blocks[position / P] * task.block_bytes;
    };
    float* weights = task.scores - std::int64_t{task.block_begin} * P;
    float largest = -INFINITY;
    for (std::int32_t p = task.visible_begin[q]; p < task.visible_end[q]; ++p) {
      weights[p] = score(task, task.queries[q], head_at(p), p % P);
      largest = std::max(largest, weights[p]);
    }
    float sum = 0.0F;
    for (std::int32_t p = task.visible_begin[q]; p < task.visible_end[q]; ++p) {
      weights[p] = std::exp(weights[p] - largest);
      sum += weights[p];
    }
    std::fill_n(task.out[q], H, 0.0F);
    for (std::int32_t p = task.visible_begin[q]; p < task.visible_end[q]; ++p) {
      const std::int64_t row = std::int64_t{P} * H + p % P * value_stride(H);
      for (int h = 0; h < H; ++h) {
        task.out[q][h] += weights[p] * load_kv(task.format, head_at(p), row + h);
      }
    }
    for (int h = 0; h < H; ++h) task.out[q][h] /= sum;
  }
}

// --- peaks -------------------------------------------------------------------------------------

float peak_bytes(std::int64_t rounds) {
  std::int32_t sums[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  for (std::int64_t r = 0; r < rounds; ++r) {
    for (std::int32_t& sum : sums) sum += static_cast<std::int8_t>(sum) * 3;
  }
  return static_cast<float>(sums[0] ^ sums[1] ^ sums[2] ^ sums[3] ^ sums[4] ^ sums[5] ^ sums[6] ^
                            sums[7]);
}

float peak_floats(std::int64_t rounds) {
  float sums[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  for (std::int64_t r = 0; r < rounds; ++r) {
    for (float& sum : sums) sum = sum * 0.999F + 0.999F;
  }
  float all = 0.0F;
  for (const float sum : sums) all += sum;
  return all;
}

}  // namespace

constinit const kernel_table reference_table = {
    .block_strip_rows = 1,
    .float_strip_rows = 1,
    .quantize_strip = quantize_strip,
    .interleave_strip = interleave_strip,
    .product = product,
    .rms_norm = rms_norm,
    .rope_store = rope_store,
    .attend = attend,
    .training = &reference_training,
    .peak_bytes = peak_bytes,
    .peak_floats = peak_floats,
    .peak_byte_operations = 8 * 2,
    .peak_float_operations = 8 * 2,
};

}  // namespace tandem::kernels::cpu
