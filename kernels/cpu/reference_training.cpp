// Training's plain kernels: formulas in their own order, one value at a time.
#include "kernels/cpu/reference_training.hpp"

#include "kernels/cpu/half.hpp"
#include "kernels/cpu/kernel_table.hpp"
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

float load_half(const std::byte* p) { return float_of_half(load<std::uint16_t>(p)); }

// --- operands of products ----------------------------------------------------------------------

void copy_columns(const float* x, std::int64_t stride, std::int64_t rows, int columns, int width,
                  float* out) {
  for (std::int64_t t = 0; t < rows; ++t, x += stride, out += width) {
    std::copy_n(x, columns, out);
    std::fill(out + columns, out + width, 0.0F);
  }
}

void turn_rows(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t columns,
               float* out) {
  for (std::int64_t c = 0; c < columns; ++c) {
    for (std::int64_t r = 0; r < rows; ++r) out[c * panel_outputs + r] = x[r * stride + c];
  }
}

// Weight of output `lane` and column k, from any format's panel.
float weight_at(weight_format format, const std::byte* panel, int lane, std::int64_t k) {
  const std::int64_t block = k / block_columns;
  const std::int64_t i = k % block_columns;
  switch (format) {
    case weight_format::f32:
      return load<float>(panel + 4 * (k * panel_outputs + lane));
    case weight_format::f16:
      return load_half(panel + 2 * (k * panel_outputs + lane));
    case weight_format::bf16:
      return float_of_bf16(load<std::uint16_t>(panel + 2 * (k * panel_outputs + lane)));
    case weight_format::fp8: {
      const std::byte* record = panel + k / fp8_block_columns * fp8_record_bytes;
      const std::byte code = record[64 + k % fp8_block_columns * panel_outputs + lane];
      return float_of_e4m3(std::to_integer<std::uint8_t>(code)) * load<float>(record + 4 * lane);
    }
    case weight_format::q8_0: {
      const std::byte* record = panel + block / 2 * q8_0_record_bytes;
      const std::int64_t half = block % 2;
      const int quant = std::to_integer<int>(record[half * 512 + i / 4 * 64 + 4 * lane + i % 4]);
      return static_cast<float>(quant - 128) * load_half(record + 1024 + 32 * half + 2 * lane);
    }
    default:
      break;
  }
  const bool has_min = format == weight_format::q4_1;
  const std::int64_t half = has_min ? 0 : block % 2;
  const std::byte* record =
      panel + (has_min ? block * q4_1_record_bytes : block / 2 * q4_0_record_bytes);
  const int pair = std::to_integer<int>(record[half * 256 + i % 16 / 4 * 64 + 4 * lane + i % 4]);
  const int quant = i < 16 ? pair & 15 : pair >> 4;
  if (!has_min) {
    return static_cast<float>(quant - 8) * load_half(record + 512 + 32 * half + 2 * lane);
  }
  return static_cast<float>(quant) * load_half(record + 256 + 2 * lane) +
         load_half(record + 288 + 2 * lane);
}

void turn_weights(weight_format format, const std::byte* panel, std::int64_t first,
                  std::int64_t columns, float* out) {
  for (int o = 0; o < panel_outputs; ++o) {
    for (int c = 0; c < panel_outputs; ++c) {
      out[o * panel_outputs + c] =
          first + c < columns ? weight_at(format, panel, o, first + c) : 0.0F;
    }
  }
}

// --- sums over rows ----------------------------------------------------------------------------

float segment_tree(const column_sum_task& task, std::int64_t column, std::int64_t begin,
                   std::int64_t end) {
  if (end - begin > 1) {
    const std::int64_t middle = (begin + end) / 2;
    return segment_tree(task, column, begin, middle) + segment_tree(task, column, middle, end);
  }
  const row_segment& segment = task.segments[begin];
  float sum = 0.0F;
  for (std::int64_t t = segment.first_row; t < segment.first_row + segment.row_count; ++t) {
    for (std::int64_t n = 0; n < task.heads; ++n) {
      const float a = task.a[t * task.a_stride + n * task.head_stride + column];
      if (task.b == nullptr) {
        sum += a;
      } else {
        sum += a * (task.b[t * task.b_stride + n * task.head_stride + column] *
                    task.factors[t * task.factor_stride + n]);
      }
    }
  }
  return sum;
}

void column_sums(const column_sum_task& task, std::int64_t begin, std::int64_t end) {
  for (std::int64_t c = begin; c < end; ++c) {
    task.into[c] += segment_tree(task, c, 0, task.segment_count);
  }
}

// --- rows --------------------------------------------------------------------------------------

float inverse_rms(const float* x, float eps, std::int64_t columns) {
  float squares = 0.0F;
  for (std::int64_t i = 0; i < columns; ++i) squares += x[i] * x[i];
  return 1.0F / std::sqrt(squares / static_cast<float>(columns) + eps);
}

// y = x r w with r = 1 / sqrt(mean(x^2) + eps): dx = r (dy w) - x r^3 / D sum(dy w x).
void rms_norm_backward(const float* dy, const float* x, const float* w, float inverse,
                       std::int64_t columns, bool add, float* dx) {
  float along = 0.0F;
  for (std::int64_t i = 0; i < columns; ++i) along += dy[i] * w[i] * x[i];
  const float factor = along * inverse * inverse / static_cast<float>(columns);
  for (std::int64_t i = 0; i < columns; ++i) {
    const float d = inverse * (dy[i] * w[i] - x[i] * factor);
    dx[i] = add ? dx[i] + d : d;
  }
}

void turn_head(const float* cos_sin, int rotary_size, bool back, float* head) {
  const int half = rotary_size / 2;
  for (int i = 0; i < half; ++i) {
    const float cosine = cos_sin[i];
    const float sine = back ? -cos_sin[half + i] : cos_sin[half + i];
    const float a = head[i];
    const float b = head[half + i];
    head[i] = a * cosine - b * sine;
    head[half + i] = b * cosine + a * sine;
  }
}

struct activated {
  float value;
  float slope;
};

activated activate_one(activation act, float x) {
  if (act == activation::silu) {
    const float sigmoid = 1.0F / (1.0F + std::exp(-x));
    return {x * sigmoid, sigmoid * (1.0F + x * (1.0F - sigmoid))};
  }
  constexpr float a = 0.7978845608F, b = 0.044715F;
  const float t = std::tanh(a * (x + b * x * x * x));
  return {0.5F * x * (1.0F + t),
          0.5F * (1.0F + t) + 0.5F * x * (1.0F - t * t) * a * (1.0F + 3.0F * b * x * x)};
}

void activate(const float* gate_up, activation act, std::int64_t columns, float* y) {
  for (std::int64_t i = 0; i < columns; ++i) {
    const float* gate = gate_up + i / panel_outputs * 2 * panel_outputs + i % panel_outputs;
    y[i] = activate_one(act, gate[0]).value * gate[panel_outputs];
  }
}

void activate_backward(const float* dy, activation act, std::int64_t columns, float* gate_up) {
  const std::int64_t padded = (columns + panel_outputs - 1) / panel_outputs * panel_outputs;
  for (std::int64_t i = 0; i < padded; ++i) {
    float* gate = gate_up + i / panel_outputs * 2 * panel_outputs + i % panel_outputs;
    const float d = i < columns ? dy[i] : 0.0F;
    const float up = i < columns ? gate[panel_outputs] : 0.0F;
    const activated active = activate_one(act, i < columns ? gate[0] : 0.0F);
    gate[0] = d * up * active.slope;
    gate[panel_outputs] = d * active.value;
  }
}

// --- cross entropy -----------------------------------------------------------------------------

void observe(const float* logits, std::int64_t columns, std::int32_t first_id,
             cross_entropy_row& row) {
  float maximum = first_id == 0 ? -INFINITY : row.maximum;
  float sum = first_id == 0 ? 0.0F : row.sum;
  float piece = -INFINITY;
  std::int64_t best = 0;
  for (std::int64_t i = 0; i < columns; ++i) {
    if (logits[i] > piece) {
      piece = logits[i];
      best = i;
    }
  }
  if (first_id == 0 || piece > maximum) {
    row.best = first_id + static_cast<std::int32_t>(best);
    if (first_id != 0) sum *= std::exp(maximum - piece);
    maximum = piece;
  }
  for (std::int64_t i = 0; i < columns; ++i) sum += std::exp(logits[i] - maximum);
  row.maximum = maximum;
  row.sum = sum;
  const std::int64_t target = row.target - first_id;
  if (target >= 0 && target < columns) row.target_logit = logits[target];
}

void cross_entropy_backward(float* logits, std::int64_t columns, std::int32_t first_id,
                            const cross_entropy_row& row, float scale) {
  const float inverse = 1.0F / row.sum;
  for (std::int64_t i = 0; i < columns; ++i) {
    const float one = first_id + i == row.target ? 1.0F : 0.0F;
    logits[i] = scale * (std::exp(logits[i] - row.maximum) * inverse - one);
  }
}

// --- arrays ------------------------------------------------------------------------------------

void adamw(const adamw_task& task, const float* gradient, std::int64_t count, float* w, float* m,
           float* v) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = gradient[i] * task.gradient_scale;
    m[i] += task.beta1_rest * (g - m[i]);
    v[i] = v[i] * task.beta2 + task.beta2_rest * (g * g);
    const float root = std::sqrt(v[i]) * task.inverse_root + task.eps;
    w[i] = w[i] * task.keep - task.step_size * (m[i] / root);
  }
}

double sum_of_squares(const float* x, std::int64_t count) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < count; ++i) sum += double{x[i]} * double{x[i]};
  return sum;
}

float dot(const float* a, const float* b, std::int64_t count) {
  float sum = 0.0F;
  for (std::int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

void scale(const float* x, float factor, std::int64_t count, float* y) {
  for (std::int64_t i = 0; i < count; ++i) y[i] = factor * x[i];
}

void add_scaled(const float* x, float factor, std::int64_t count, float* y) {
  for (std::int64_t i = 0; i < count; ++i) y[i] += factor * x[i];
}

// --- attention ---------------------------------------------------------------------------------

void packed_attention(const packed_attention_task& task) {
  const std::int64_t H = task.head_size;
  float* weights = task.scratch;
  for (std::int64_t t = task.first_row; t < task.end_row; ++t) {
    const std::int64_t first = task.window > 0 ? std::max<std::int64_t>(0, t + 1 - task.window) : 0;
    for (std::int64_t n = 0; n < task.heads; ++n) {
      const float* q = task.q + t * task.qkv_stride + n * H;
      float* out = task.out + t * task.out_stride + n * H;
      float largest = -INFINITY;
      for (std::int64_t s = first; s <= t; ++s) {
        weights[s] = task.scale * dot(q, task.k + s * task.qkv_stride, H);
        largest = std::max(largest, weights[s]);
      }
      float sum = 0.0F;
      std::fill_n(out, H, 0.0F);
      for (std::int64_t s = first; s <= t; ++s) {
        const float weight = std::exp(weights[s] - largest);
        sum += weight;
        add_scaled(task.v + s * task.qkv_stride, weight, H, out);
      }
      scale(out, 1.0F / sum, H, out);
      task.lse[t * task.lse_stride + n] = largest + std::log(sum);
    }
  }
}

// p = exp(scale q.k - lse); dp = dout.v; ds = p (dp - dout.out); then dv += p dout,
// dq += scale ds k, dk += scale ds q.
void attention_backward(const attention_backward_task& task) {
  const std::int64_t H = task.head_size;
  const std::int64_t width = (H + 15) / 16 * 16;
  std::fill_n(task.dk, task.rows * width, 0.0F);
  std::fill_n(task.dv, task.rows * width, 0.0F);
  for (std::int64_t t = 0; t < task.rows; ++t) {
    const float* q = task.q + t * task.qkv_stride;
    const float* dout = task.dout + t * task.dout_stride;
    const float along = dot(dout, task.out + t * task.out_stride, H);
    float* dq = task.dq + t * task.dq_stride;
    std::fill_n(dq, H, 0.0F);
    const std::int64_t first = task.window > 0 ? std::max<std::int64_t>(0, t + 1 - task.window) : 0;
    for (std::int64_t s = first; s <= t; ++s) {
      const float* k = task.k + s * task.qkv_stride;
      const float* v = task.v + s * task.qkv_stride;
      const float p = std::exp(task.scale * dot(q, k, H) - task.lse[t * task.lse_stride]);
      const float ds = task.scale * (p * (dot(dout, v, H) - along));
      for (std::int64_t h = 0; h < H; ++h) {
        task.dv[s * width + h] += p * dout[h];
        task.dk[s * width + h] += ds * q[h];
        dq[h] += ds * k[h];
      }
    }
  }
}

}  // namespace

constinit const training_kernels reference_training = {
    .copy_columns = copy_columns,
    .turn_rows = turn_rows,
    .turn_weights = turn_weights,
    .column_sums = column_sums,
    .inverse_rms = inverse_rms,
    .rms_norm_backward = rms_norm_backward,
    .turn_head = turn_head,
    .activate = activate,
    .activate_backward = activate_backward,
    .observe = observe,
    .cross_entropy_backward = cross_entropy_backward,
    .adamw = adamw,
    .sum_of_squares = sum_of_squares,
    .dot = dot,
    .scale = scale,
    .add_scaled = add_scaled,
    .packed_attention = packed_attention,
    .attention_backward = attention_backward,
};

}  // namespace tandem::kernels::cpu
