// Training's rows over sixteen lanes: norms, activations, cross entropy, sums over rows, AdamW.
// Each pass reads its rows once or twice from memory and does nothing else there.
#pragma once

#include "kernels/cpu/kernel_table.hpp"
#include "kernels/cpu/lanes_math.hpp"

namespace tandem::kernels::cpu {

// f(i, n) for n lanes from each i; n is 16 but at the end, so whole vectors take no mask.
template <class F>
TANDEM_INLINE void for_lanes(std::int64_t count, F f) {
  std::int64_t i = 0;
  for (; i + 16 <= count; i += 16) f(i, 16);
  if (i < count) f(i, static_cast<int>(count - i));
}
template <class L>
TANDEM_INLINE typename L::floats load_lanes(const float* p, int n) {
  return n == 16 ? L::load(p) : L::load(p, n);
}
template <class L>
TANDEM_INLINE void store_lanes(float* p, typename L::floats x, int n) {
  n == 16 ? L::store(p, x) : L::store(p, x, n);
}

// --- operands of products ----------------------------------------------------------------------

template <class L>
void copy_columns(const float* x, std::int64_t stride, std::int64_t rows, int columns, int width,
                  float* out) {
  if (width % 16 == 0) {
    for (std::int64_t t = 0; t < rows; ++t, x += stride, out += width) {
      for (int c = 0; c < width; c += 16) {
        const int left = columns - c;
        L::store(out + c, left >= 16 ? L::load(x + c)
                          : left > 0 ? L::load(x + c, left)
                                     : L::zero());
      }
    }
    return;
  }
  std::int64_t t = 0;
  if (columns == width && width < 16) {
    // Whole vectors reach into the next rows of out, written later; and into columns of x behind
    // these, which the last rows may lack.
    for (; (rows - t) * width >= 16 && t * stride + 16 <= (rows - 1) * stride + width; ++t) {
      L::store(out + t * width, L::load(x + t * stride));
    }
  }
  for (; t < rows; ++t) {
    for (int c = 0; c < width; ++c) {
      out[t * width + c] = c < columns ? x[t * stride + c] : 0.0F;
    }
  }
}

template <class L>
void turn_rows(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t columns,
               float* out) {
  std::int64_t c = 0;
  for (; c + 16 <= columns; c += 16) {
    L::turn(x + c, stride, static_cast<int>(rows), out + 16 * c, 16);
  }
  for (; c < columns; ++c) {
    for (std::int64_t r = 0; r < rows; ++r) out[16 * c + r] = x[r * stride + c];
  }
}

// Sixteen columns of a block format's panel: column c's sixteen outputs at out + 16 c.
template <class L>
void decode_columns(weight_format format, const std::byte* panel, std::int64_t first, float* out) {
  const std::int64_t block = first / block_columns;
  const int upper = static_cast<int>(first % block_columns / 16);
  const std::byte* record = panel + block * q4_1_record_bytes;
  const std::byte* quants = record;
  const std::byte* scales = record + 256;
  int offset = 0;
  if (format != weight_format::q4_1) {
    const bool bytes = format == weight_format::q8_0;
    const std::int64_t half = block % 2;
    record = panel + block / 2 * (bytes ? q8_0_record_bytes : q4_0_record_bytes);
    quants = record + half * (bytes ? 512 : 256) + (bytes ? 256 * upper : 0);
    scales = record + (bytes ? 1024 : 512) + 32 * half;
    offset = bytes ? 128 : 8;
  }
  const int mask = format == weight_format::q8_0 ? 255 : 15;
  const int shift = format == weight_format::q8_0 ? 0 : 4 * upper;
  const auto scale = L::load_half(scales);
  const auto min = format == weight_format::q4_1 ? L::load_half(scales + 32) : L::zero();
  for (int j = 0; j < 4; ++j) {
    const auto dwords = L::load_bytes(quants + 64 * j);
    for (int i = 0; i < 4; ++i) {
      const auto quant = L::add_ints(L::field(dwords, 8 * i + shift, mask), L::all_ints(-offset));
      const auto scaled = L::multiply(L::to_floats(quant), scale);
      L::store(out + 16 * (4 * j + i), offset == 0 ? L::add(scaled, min) : scaled);
    }
  }
}

template <class L>
void turn_weights(weight_format format, const std::byte* panel, std::int64_t first,
                  std::int64_t columns, float* out) {
  const int count = columns - first < 16 ? static_cast<int>(columns - first) : 16;
  if (format == weight_format::f32) {
    return L::turn(reinterpret_cast<const float*>(panel) + 16 * first, 16, count, out, 16);
  }
  alignas(64) float values[16 * 16];
  if (format == weight_format::f16 || format == weight_format::bf16) {
    for (int c = 0; c < count; ++c) {
      const std::byte* at = panel + 32 * (first + c);
      L::store(values + 16 * c, format == weight_format::f16 ? L::load_half(at) : L::load_bf16(at));
    }
  } else if (format == weight_format::fp8) {
    const std::byte* const record = panel + first / fp8_record_columns * fp8_record_bytes;
    const auto scales = load_fp8_scales<L>(record);
    for (int c = 0; c < count; ++c) {
      const std::byte* at = record + 64 + 16 * (first % fp8_record_columns + c);
      L::store(values + 16 * c, L::multiply(L::load_e4m3(at), scales));
    }
  } else {
    decode_columns<L>(format, panel, first, values);
  }
  L::turn(values, 16, count, out, 16);
}

// --- sums over rows ----------------------------------------------------------------------------

// V vectors of columns from `column`; only one with n lanes where V is 1.
template <class L, int V>
void sum_segment(const column_sum_task& task, const row_segment& segment, std::int64_t column,
                 int n, typename L::floats* sums) {
  for (int v = 0; v < V; ++v) sums[v] = L::zero();
  for (std::int64_t t = segment.first_row; t < segment.first_row + segment.row_count; ++t) {
    for (std::int64_t head = 0; head < task.heads; ++head) {
      const float* a = task.a + t * task.a_stride + head * task.head_stride + column;
      if (task.b == nullptr) {
        TANDEM_UNROLL
        for (int v = 0; v < V; ++v) sums[v] = L::add(sums[v], load_lanes<L>(a + 16 * v, n));
        continue;
      }
      const float* b = task.b + t * task.b_stride + head * task.head_stride + column;
      const auto factor = L::all(task.factors[t * task.factor_stride + head]);
      TANDEM_UNROLL
      for (int v = 0; v < V; ++v) {
        const auto normed = L::multiply(load_lanes<L>(b + 16 * v, n), factor);
        sums[v] = L::fma(load_lanes<L>(a + 16 * v, n), normed, sums[v]);
      }
    }
  }
}

template <class L, int V>
void sum_tree(const column_sum_task& task, std::int64_t begin, std::int64_t end,
              std::int64_t column, int n, typename L::floats* sums) {
  if (end - begin == 1) return sum_segment<L, V>(task, task.segments[begin], column, n, sums);
  typename L::floats right[V];
  const std::int64_t middle = (begin + end) / 2;
  sum_tree<L, V>(task, begin, middle, column, n, sums);
  sum_tree<L, V>(task, middle, end, column, n, right);
  for (int v = 0; v < V; ++v) sums[v] = L::add(sums[v], right[v]);
}

template <class L>
void column_sums(const column_sum_task& task, std::int64_t begin, std::int64_t end) {
  constexpr int V = 4;
  typename L::floats sums[V];
  for (; begin + 16 * V <= end; begin += 16 * V) {
    sum_tree<L, V>(task, 0, task.segment_count, begin, 16, sums);
    for (int v = 0; v < V; ++v) {
      float* into = task.into + begin + 16 * v;
      L::store(into, L::add(L::load(into), sums[v]));
    }
  }
  for_lanes(end - begin, [&](std::int64_t i, int n) {
    sum_tree<L, 1>(task, 0, task.segment_count, begin + i, n, sums);
    float* into = task.into + begin + i;
    store_lanes<L>(into, L::add(load_lanes<L>(into, n), sums[0]), n);
  });
}

// --- rows --------------------------------------------------------------------------------------

// The sum of f(i, n) over a row in four sums: one alone would wait for each addition.
template <class L, class F>
TANDEM_INLINE float sum_lanes(std::int64_t columns, F term) {
  typename L::floats sums[4] = {L::zero(), L::zero(), L::zero(), L::zero()};
  std::int64_t i = 0;
  for (; i + 64 <= columns; i += 64) {
    TANDEM_UNROLL
    for (int j = 0; j < 4; ++j) sums[j] = term(i + 16 * j, 16, sums[j]);
  }
  for (; i < columns; i += 16) {
    sums[0] = term(i, columns - i < 16 ? static_cast<int>(columns - i) : 16, sums[0]);
  }
  return L::sum(L::add(L::add(sums[0], sums[1]), L::add(sums[2], sums[3])));
}

template <class L>
float inverse_rms(const float* x, float eps, std::int64_t columns) {
  const float sum = sum_lanes<L>(columns, [&](std::int64_t i, int n, typename L::floats s) {
    const auto v = load_lanes<L>(x + i, n);
    return L::fma(v, v, s);
  });
  return 1.0F / L::root(sum / static_cast<float>(columns) + eps);
}

template <class L>
void rms_norm_backward(const float* dy, const float* x, const float* w, float inverse,
                       std::int64_t columns, bool add, float* dx) {
  const float along = sum_lanes<L>(columns, [&](std::int64_t i, int n, typename L::floats s) {
    const auto scaled = L::multiply(load_lanes<L>(dy + i, n), load_lanes<L>(w + i, n));
    return L::fma(scaled, load_lanes<L>(x + i, n), s);
  });
  const auto factor = L::all(-along * inverse * inverse / static_cast<float>(columns));
  const auto all = L::all(inverse);
  for_lanes(columns, [&](std::int64_t i, int n) {
    const auto scaled = L::multiply(load_lanes<L>(dy + i, n), load_lanes<L>(w + i, n));
    auto d = L::multiply(all, L::fma(load_lanes<L>(x + i, n), factor, scaled));
    if (add) d = L::add(load_lanes<L>(dx + i, n), d);
    store_lanes<L>(dx + i, d, n);
  });
}

template <class L>
void turn_head(const float* cos_sin, int rotary_size, bool back, float* head) {
  const int half = rotary_size / 2;
  for_lanes(half, [&](std::int64_t i, int n) {
    const auto cosine = load_lanes<L>(cos_sin + i, n);
    auto sine = load_lanes<L>(cos_sin + half + i, n);
    if (back) sine = L::subtract(L::zero(), sine);
    const auto a = load_lanes<L>(head + i, n);
    const auto b = load_lanes<L>(head + half + i, n);
    store_lanes<L>(head + i, L::subtract(L::multiply(a, cosine), L::multiply(b, sine)), n);
    store_lanes<L>(head + half + i, L::add(L::multiply(b, cosine), L::multiply(a, sine)), n);
  });
}

template <class L>
void activate(const float* gate_up, activation act, std::int64_t columns, float* y) {
  for_lanes(columns, [&](std::int64_t i, int n) {
    const auto gate = L::load(gate_up + 2 * i);
    const auto active = act == activation::silu ? silu<L>(gate) : gelu_tanh<L>(gate);
    store_lanes<L>(y + i, L::multiply(active, L::load(gate_up + 2 * i + 16)), n);
  });
}

// With s = 1 / (1 + e^-z), z = x or 2 u: act = x s, act' = s + x z' s (1 - s).
template <class L>
void activate_backward(const float* dy, activation act, std::int64_t columns, float* gate_up) {
  const auto one = L::all(1.0F);
  for_lanes(columns, [&](std::int64_t i, int n) {
    float* at = gate_up + 2 * i;
    // Of padding lanes the file's gate and up are zero products; what comes back is made zero.
    const auto x = L::between(0, n, L::load(at), L::zero());
    const auto up = L::between(0, n, L::load(at + 16), L::zero());
    const auto d = load_lanes<L>(dy + i, n);
    auto z = x;
    auto slope = one;
    if (act == activation::gelu_tanh) {
      const auto square = L::multiply(x, x);
      z = L::multiply(L::all(1.5957691216F), L::fma(L::multiply(square, x), L::all(0.044715F), x));
      slope = L::multiply(L::all(1.5957691216F), L::fma(square, L::all(0.134145F), one));
    }
    const auto falling = exponential<L>(L::subtract(L::zero(), z));
    const auto s = L::divide(one, L::add(one, falling));
    // 1 - s would lose digits where s is near 1.
    const auto rest = L::multiply(L::multiply(x, slope), L::multiply(falling, s));
    const auto derivative = L::fma(s, rest, s);
    L::store(at, L::multiply(L::multiply(d, up), derivative));
    L::store(at + 16, L::multiply(d, L::multiply(x, s)));
  });
}

// --- cross entropy -----------------------------------------------------------------------------

template <class L>
void observe(const float* logits, std::int64_t columns, std::int32_t first_id,
             cross_entropy_row& row) {
  // The largest of each stretch first, then its place in the first stretch that has it.
  constexpr std::int64_t stretch = 256;
  const float lowest = -__builtin_inff();
  float piece = lowest;
  std::int64_t where = 0;
  for (std::int64_t from = 0; from < columns; from += stretch) {
    const std::int64_t count = columns - from < stretch ? columns - from : stretch;
    auto most = L::all(lowest);
    for_lanes(count, [&](std::int64_t i, int n) {
      const auto x = load_lanes<L>(logits + from + i, n);
      // The second operand stays where the first is not a number.
      most = L::greater(n == 16 ? x : L::between(0, n, x, L::all(lowest)), most);
    });
    const float largest = L::largest(most);
    if (largest > piece) {
      piece = largest;
      where = from;
    }
  }
  const bool first = first_id == 0;
  float sum = first ? 0.0F : row.sum;
  if (first || piece > row.maximum) {
    while (where + 1 < columns && !(logits[where] == piece)) ++where;
    row.best = first_id + static_cast<std::int32_t>(where);
    if (!first) {
      float shrink[16];
      L::store(shrink, exponential<L>(L::all(row.maximum - piece)));
      sum *= shrink[0];
    }
    row.maximum = piece;
  }
  const auto maximum = L::all(row.maximum);
  sum += sum_lanes<L>(columns, [&](std::int64_t i, int n, typename L::floats s) {
    const auto e = exponential<L>(L::subtract(load_lanes<L>(logits + i, n), maximum));
    return L::add(s, n == 16 ? e : L::between(0, n, e, L::zero()));
  });
  row.sum = sum;
  const std::int64_t target = row.target - first_id;
  if (target >= 0 && target < columns) row.target_logit = logits[target];
}

template <class L>
void cross_entropy_backward(float* logits, std::int64_t columns, std::int32_t first_id,
                            const cross_entropy_row& row, float scale) {
  const auto maximum = L::all(row.maximum);
  const auto inverse = L::all(1.0F / row.sum);
  const auto scales = L::all(scale);
  for_lanes(columns, [&](std::int64_t i, int n) {
    const auto e = exponential<L>(L::subtract(load_lanes<L>(logits + i, n), maximum));
    store_lanes<L>(logits + i, L::multiply(scales, L::multiply(e, inverse)), n);
  });
  const std::int64_t target = row.target - first_id;
  if (target >= 0 && target < columns) logits[target] -= scale;
}

// --- arrays ------------------------------------------------------------------------------------

template <class L>
void adamw(const adamw_task& task, const float* gradient, std::int64_t count, float* w, float* m,
           float* v) {
  const auto gradient_scale = L::all(task.gradient_scale);
  const auto beta1_rest = L::all(task.beta1_rest);
  const auto beta2 = L::all(task.beta2);
  const auto beta2_rest = L::all(task.beta2_rest);
  const auto inverse_root = L::all(task.inverse_root);
  const auto eps = L::all(task.eps);
  const auto keep = L::all(task.keep);
  const auto step = L::all(task.step_size);
  for_lanes(count, [&](std::int64_t i, int n) {
    const auto g = L::multiply(load_lanes<L>(gradient + i, n), gradient_scale);
    auto mean = load_lanes<L>(m + i, n);
    mean = L::fma(beta1_rest, L::subtract(g, mean), mean);
    const auto squares = L::multiply(L::multiply(g, g), beta2_rest);
    const auto variance = L::fma(load_lanes<L>(v + i, n), beta2, squares);
    const auto root = L::fma(L::roots(variance), inverse_root, eps);
    const auto kept = L::multiply(load_lanes<L>(w + i, n), keep);
    const auto moved = L::subtract(kept, L::multiply(step, L::divide(mean, root)));
    store_lanes<L>(m + i, mean, n);
    store_lanes<L>(v + i, variance, n);
    store_lanes<L>(w + i, moved, n);
  });
}

// Squares of floats are exact in float64, so only the order of the additions matters.
template <class L>
double sum_of_squares(const float* x, std::int64_t count) {
  double sums[16] = {};
  std::int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int j = 0; j < 16; ++j) {
      const double v = double{x[i + j]};
      sums[j] += v * v;
    }
  }
  for (int j = 0; i < count; ++i, ++j) sums[j] += double{x[i]} * double{x[i]};
  double sum = 0.0;
  for (const double s : sums) sum += s;
  return sum;
}

template <class L>
float dot(const float* a, const float* b, std::int64_t count) {
  return sum_lanes<L>(count, [&](std::int64_t i, int n, typename L::floats s) {
    return L::fma(load_lanes<L>(a + i, n), load_lanes<L>(b + i, n), s);
  });
}

template <class L>
void scale(const float* x, float factor, std::int64_t count, float* y) {
  const auto all = L::all(factor);
  for_lanes(count, [&](std::int64_t i, int n) {
    store_lanes<L>(y + i, L::multiply(load_lanes<L>(x + i, n), all), n);
  });
}

template <class L>
void add_scaled(const float* x, float factor, std::int64_t count, float* y) {
  const auto all = L::all(factor);
  for_lanes(count, [&](std::int64_t i, int n) {
    store_lanes<L>(y + i, L::fma(load_lanes<L>(x + i, n), all, load_lanes<L>(y + i, n)), n);
  });
}

}  // namespace tandem::kernels::cpu
