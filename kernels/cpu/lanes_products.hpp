// Products of strips with panels over sixteen lanes; the layouts are in kernel_table.hpp. One lane
// is one output, K runs in the same order for every strip height, so a row's bits do not depend on
// the rows beside it. Traffic: each panel is read once from memory and stays in L1 or L2 while the
// strips of a chunk pass by.
//
// For a block of 32 k, a row of a strip costs 8 vpdpbusd, 1 conversion, 1 multiply and 2 fma (q4_1;
// 1 fma otherwise): at best 8/11 or 8/10 of the int8 peak. A column of fp8 costs 2 integer
// operations, 2 of a conversion and 1 multiply beside its rows' fma.
#pragma once

#include "kernels/cpu/kernel_table.hpp"
#include "kernels/cpu/lanes_math.hpp"
#include "kernels/cpu/lanes_strips.hpp"

namespace tandem::kernels::cpu {

// --- one panel times one strip: R x 16 sums ----------------------------------------------------

template <class L>
TANDEM_INLINE typename L::ints broadcast4(const std::byte* p) {
  return L::all_ints(load_at<L, std::int32_t>(p));
}

template <class L>
TANDEM_INLINE void load_nibbles(const std::byte* quants, typename L::ints* w) {
  TANDEM_UNROLL
  for (int j = 0; j < 4; ++j) {
    const auto bytes = L::load_bytes(quants + 64 * j);
    w[j] = L::low_nibbles(bytes);
    w[j + 4] = L::high_nibbles(bytes);
  }
}

// Rows go in pairs where there are two: the eight products of one row wait for each other.
template <int R>
inline constexpr int rows_together = R % 2 == 0 ? 2 : 1;

// Adds eight times four products to each of G rows' sums.
template <class L, int G, class Dot>
TANDEM_INLINE void dot_rows(typename L::ints* dots, const typename L::ints* w, const std::byte* a,
                            Dot dot) {
  TANDEM_UNROLL
  for (int j = 0; j < 8; ++j) {
    TANDEM_UNROLL
    for (int g = 0; g < G; ++g) dots[g] = dot(dots[g], w[j], broadcast4<L>(a + 32 * g + 4 * j));
  }
}

template <class L, int R>
void q4_1_tile(const std::byte* record, std::int64_t blocks, const std::byte* strip, float* tile) {
  typename L::floats sums[R];
  TANDEM_UNROLL
  for (int r = 0; r < R; ++r) sums[r] = L::zero();
  for (std::int64_t b = 0; b < blocks; ++b, record += q4_1_record_bytes, strip += R * 40) {
    typename L::ints w[8];
    load_nibbles<L>(record, w);
    const auto scale = L::load_half(record + 256);
    const auto min = L::load_half(record + 288);
    const std::byte* scales = strip + R * 32;
    const std::byte* scaled_sums = scales + R * 4;
    constexpr int G = rows_together<R>;
    TANDEM_UNROLL
    for (int r = 0; r < R; r += G) {
      typename L::ints dots[G];
      TANDEM_UNROLL
      for (int g = 0; g < G; ++g) dots[g] = L::zero_ints();
      dot_rows<L, G>(dots, w, strip + 32 * r,
                     [](auto sum, auto v, auto x) { return L::dot_nibbles(sum, v, x); });
      TANDEM_UNROLL
      for (int i = r; i < r + G; ++i) {
        sums[i] = L::fma(min, L::all(load_at<L, float>(scaled_sums + 4 * i)), sums[i]);
        sums[i] = L::fma(L::multiply(L::to_floats(dots[i - r]), scale),
                         L::all(load_at<L, float>(scales + 4 * i)), sums[i]);
      }
    }
  }
  TANDEM_UNROLL
  for (int r = 0; r < R; ++r) L::store(tile + 16 * r, sums[r]);
}

template <class L, int R>
void q4_0_tile(const std::byte* record, std::int64_t blocks, const std::byte* strip, float* tile) {
  typename L::floats sums[R];
  TANDEM_UNROLL
  for (int r = 0; r < R; ++r) sums[r] = L::zero();
  for (std::int64_t b = 0; b < blocks; ++b, strip += R * 40) {
    const std::byte* half = record + b / 2 * q4_0_record_bytes;
    typename L::ints w[8];
    load_nibbles<L>(half + b % 2 * 256, w);
    const auto scale = L::load_half(half + 512 + b % 2 * 32);
    const std::byte* scales = strip + R * 32;
    const std::byte* offsets = scales + R * 4;
    constexpr int G = rows_together<R>;
    TANDEM_UNROLL
    for (int r = 0; r < R; r += G) {
      typename L::ints dots[G];
      TANDEM_UNROLL
      for (int g = 0; g < G; ++g) dots[g] = broadcast4<L>(offsets + 4 * (r + g));
      dot_rows<L, G>(dots, w, strip + 32 * r,
                     [](auto sum, auto v, auto x) { return L::dot_nibbles(sum, v, x); });
      TANDEM_UNROLL
      for (int i = r; i < r + G; ++i) {
        sums[i] = L::fma(L::multiply(L::to_floats(dots[i - r]), scale),
                         L::all(load_at<L, float>(scales + 4 * i)), sums[i]);
      }
    }
  }
  TANDEM_UNROLL
  for (int r = 0; r < R; ++r) L::store(tile + 16 * r, sums[r]);
}

template <class L, int R>
void q8_0_tile(const std::byte* record, std::int64_t blocks, const std::byte* strip, float* tile) {
  typename L::floats sums[R];
  TANDEM_UNROLL
  for (int r = 0; r < R; ++r) sums[r] = L::zero();
  for (std::int64_t b = 0; b < blocks; ++b, strip += R * 40) {
    const std::byte* half = record + b / 2 * q8_0_record_bytes;
    const std::byte* quants = half + b % 2 * 512;
    typename L::ints w[8];
    TANDEM_UNROLL
    for (int j = 0; j < 8; ++j) w[j] = L::load_bytes(quants + 64 * j);
    const auto scale = L::load_half(half + 1024 + b % 2 * 32);
    const std::byte* scales = strip + R * 32;
    const std::byte* offsets = scales + R * 4;
    constexpr int G = rows_together<R>;
    TANDEM_UNROLL
    for (int r = 0; r < R; r += G) {
      typename L::ints dots[G];
      TANDEM_UNROLL
      for (int g = 0; g < G; ++g)
        dots[g] = L::start_bytes(load_at<L, std::int32_t>(offsets + 4 * (r + g)));
      dot_rows<L, G>(dots, w, strip + 32 * r,
                     [](auto sum, auto v, auto x) { return L::dot_bytes(sum, v, x); });
      TANDEM_UNROLL
      for (int i = r; i < r + G; ++i) {
        sums[i] = L::fma(L::multiply(L::to_floats(dots[i - r]), scale),
                         L::all(load_at<L, float>(scales + 4 * i)), sums[i]);
      }
    }
  }
  TANDEM_UNROLL
  for (int r = 0; r < R; ++r) L::store(tile + 16 * r, sums[r]);
}

template <class L, weight_format Format>
TANDEM_INLINE typename L::floats load_weights(const std::byte* panel, std::int64_t k) {
  if constexpr (Format == weight_format::f32) {
    return L::load(reinterpret_cast<const float*>(panel) + 16 * k);
  } else if constexpr (Format == weight_format::f16) {
    return L::load_half(panel + 32 * k);
  } else {
    return L::load_bf16(panel + 32 * k);
  }
}

// The scales of a record of fp8, for numbers as load_e4m3 gives them.
template <class L>
TANDEM_INLINE typename L::floats load_fp8_scales(const std::byte* record) {
  return L::multiply(L::load(reinterpret_cast<const float*>(record)), L::all(256.0F));
}

// Four at a time: counting costs as much as a broadcast.
template <class F>
TANDEM_INLINE void for_columns(std::int64_t columns, F f) {
  std::int64_t k = 0;
  for (; k + 4 <= columns; k += 4) {
    f(k);
    f(k + 1);
    f(k + 2);
    f(k + 3);
  }
  for (; k < columns; ++k) f(k);
}

// R rows times N neighbouring panels; panel n's sums are tile + 16 R n.
template <class L, weight_format Format, int R, int N>
void float_tile(const std::byte* panels, std::int64_t panel_bytes, std::int64_t columns,
                const std::byte* strip, float* tile) {
  const auto* a = reinterpret_cast<const float*>(strip);
  typename L::floats sums[N * R];
  TANDEM_UNROLL
  for (int i = 0; i < N * R; ++i) sums[i] = L::zero();
  const auto add_weights = [&](const typename L::floats* w) __attribute__((always_inline)) {
    TANDEM_UNROLL
    for (int r = 0; r < R; ++r) {
      const auto x = L::all(a[r]);
      TANDEM_UNROLL
      for (int n = 0; n < N; ++n) sums[n * R + r] = L::fma(w[n], x, sums[n * R + r]);
    }
    a += R;
  };
  if constexpr (Format == weight_format::fp8) {
    for (std::int64_t k = 0; k < columns; k += fp8_record_columns, panels += fp8_record_bytes) {
      typename L::floats scales[N];
      TANDEM_UNROLL
      for (int n = 0; n < N; ++n) scales[n] = load_fp8_scales<L>(panels + n * panel_bytes);
      const std::int64_t here = columns - k < fp8_record_columns ? columns - k : fp8_record_columns;
      const std::byte* at = panels + 64;
      for_columns(
          here / 2, [&](std::int64_t i) __attribute__((always_inline)) {
            typename L::floats w[N];
            typename L::floats next[N];
            TANDEM_UNROLL
            for (int n = 0; n < N; ++n) {
              L::load_two_e4m3(at + n * panel_bytes + 32 * i, w[n], next[n]);
              w[n] = L::multiply(w[n], scales[n]);
              next[n] = L::multiply(next[n], scales[n]);
            }
            add_weights(w);
            add_weights(next);
          });
      if (here % 2 == 0) continue;
      typename L::floats w[N];
      TANDEM_UNROLL
      for (int n = 0; n < N; ++n)
        w[n] = L::multiply(L::load_e4m3(at + n * panel_bytes + 16 * (here - 1)), scales[n]);
      add_weights(w);
    }
  } else {
    for_columns(
        columns, [&](std::int64_t k) __attribute__((always_inline)) {
          typename L::floats w[N];
          TANDEM_UNROLL
          for (int n = 0; n < N; ++n) w[n] = load_weights<L, Format>(panels + n * panel_bytes, k);
          add_weights(w);
        });
  }
  TANDEM_UNROLL
  for (int i = 0; i < N * R; ++i) L::store(tile + 16 * i, sums[i]);
}

// --- choosing a tile ---------------------------------------------------------------------------

inline constexpr int largest_tile = 2 * 16 * 16;

// `count` panels (1 or 2) from `panel` times a strip of R rows.
template <class L, int R>
void tile_of_height(const product_task& task, std::int64_t panel, int count, const std::byte* strip,
                    float* tile) {
  constexpr bool two_fit = 2 * R * L::registers_per_value <= L::registers - 4;
  const std::byte* weights = task.weights + panel * task.panel_bytes;
  const auto floats = [&]<weight_format Format>() {
    if constexpr (two_fit) {
      if (count == 2) {
        return float_tile<L, Format, R, 2>(weights, task.panel_bytes, task.columns, strip, tile);
      }
    }
    for (int n = 0; n < count; ++n) {
      float_tile<L, Format, R, 1>(weights + n * task.panel_bytes, 0, task.columns, strip,
                                  tile + 16 * R * n);
    }
  };
  switch (task.format) {
    case weight_format::f32:
      return floats.template operator()<weight_format::f32>();
    case weight_format::f16:
      return floats.template operator()<weight_format::f16>();
    case weight_format::bf16:
      return floats.template operator()<weight_format::bf16>();
    case weight_format::fp8:
      return floats.template operator()<weight_format::fp8>();
    default:
      break;
  }
  for (int n = 0; n < count; ++n, weights += task.panel_bytes, tile += 16 * R) {
    switch (task.format) {
      case weight_format::q4_1:
        q4_1_tile<L, R>(weights, task.blocks, strip, tile);
        break;
      case weight_format::q4_0:
        q4_0_tile<L, R>(weights, task.blocks, strip, tile);
        break;
      default:
        q8_0_tile<L, R>(weights, task.blocks, strip, tile);
        break;
    }
  }
}

template <class L>
void make_tile(const product_task& task, std::int64_t panel, int count, const strip& rows,
               float* tile) {
  const std::byte* at = task.activations + rows.first_row * task.row_bytes;
  switch (rows.rows) {
    case 1:
      return tile_of_height<L, 1>(task, panel, count, at, tile);
    case 2:
      return tile_of_height<L, 2>(task, panel, count, at, tile);
    case 4:
      return tile_of_height<L, 4>(task, panel, count, at, tile);
    case 8:
      return tile_of_height<L, 8>(task, panel, count, at, tile);
    case L::float_strip_rows:
      return tile_of_height<L, L::float_strip_rows>(task, panel, count, at, tile);
    default:
      if constexpr (L::block_strip_rows > 8) {
        return tile_of_height<L, L::block_strip_rows>(task, panel, count, at, tile);
      }
  }
}

// The tile of float segments [begin, end): a chain each, the chains' sums in a balanced tree.
template <class L>
void make_tree(product_task& piece, const row_segment* segments, std::int64_t begin,
               std::int64_t end, std::int64_t panel, int count, const strip& rows, float* tile) {
  if (end - begin == 1) {
    const row_segment& segment = segments[begin];
    const product_task whole = piece;
    piece.activations += segment.first_row * rows.rows * 4;
    piece.weights += segment.first_row * panel_outputs * 4;
    piece.columns = segment.row_count;
    make_tile<L>(piece, panel, count, rows, tile);
    piece = whole;
    return;
  }
  alignas(64) float right[largest_tile];
  const std::int64_t middle = (begin + end) / 2;
  make_tree<L>(piece, segments, begin, middle, panel, count, rows, tile);
  make_tree<L>(piece, segments, middle, end, panel, count, rows, right);
  for (int i = 0; i < 16 * rows.rows * count; i += 16) {
    L::store(tile + i, L::add(L::load(tile + i), L::load(right + i)));
  }
}

// --- from sums to outputs ----------------------------------------------------------------------

template <class L>
void store_tile(const product_task& task, std::int64_t panel, const strip& rows,
                const float* tile) {
  const std::int64_t column = panel * panel_outputs;
  const std::int64_t left = task.outputs - column;
  const int n = left < panel_outputs ? static_cast<int>(left) : panel_outputs;
  float* out = task.out + rows.first_row * task.out_stride + panel * task.out_panel_stride;
  const auto bias = task.bias != nullptr ? L::load(task.bias + column, n) : L::zero();
  // Masked stores are slow on some processors.
  const bool whole = n == panel_outputs;
  for (int r = 0; r < rows.rows; ++r, out += task.out_stride) {
    auto y = L::load(tile + 16 * r);
    if (task.bias != nullptr) y = L::add(y, bias);
    if (task.add) y = L::add(whole ? L::load(out) : L::load(out, n), y);
    whole ? L::store(out, y) : L::store(out, y, n);
  }
}

template <class L>
void store_gated(const product_task& task, std::int64_t panel, const strip& rows,
                 const float* tile) {
  const std::int64_t column = panel / 2 * panel_outputs;
  const std::int64_t left = task.outputs - column;
  const int n = left < panel_outputs ? static_cast<int>(left) : panel_outputs;
  float* out = task.out + rows.first_row * task.out_stride + panel / 2 * task.out_panel_stride;
  const float* up = tile + 16 * rows.rows;
  for (int r = 0; r < rows.rows; ++r, out += task.out_stride) {
    const auto gate = L::load(tile + 16 * r);
    const auto active = task.act == activation::silu ? silu<L>(gate) : gelu_tanh<L>(gate);
    const auto y = L::multiply(active, L::load(up + 16 * r));
    n == panel_outputs ? L::store(out, y) : L::store(out, y, n);
  }
}

template <class L>
void product(const product_task& task, std::int64_t panel_begin, std::int64_t panel_end) {
  // Activations of one chunk stay in L2 while the panels pass by.
  constexpr std::int64_t chunk_bytes = 400'000;
  const bool block = task.blocks > 0;
  alignas(64) float tile[largest_tile];
  std::int64_t from = 0;
  while (from < task.strip_count) {
    std::int64_t to = from + 1;
    while (to < task.strip_count &&
           (task.strips[to].first_row - task.strips[from].first_row) * task.row_bytes <
               chunk_bytes) {
      ++to;
    }
    for (std::int64_t panel = panel_begin; panel < panel_end;) {
      const int count = task.gated || (!block && panel + 1 < panel_end) ? 2 : 1;
      for (std::int64_t s = from; s < to; ++s) {
        const strip& rows = task.strips[s];
        if (task.segment_count > 0) {
          product_task piece = task;
          make_tree<L>(piece, task.segments, 0, task.segment_count, panel, count, rows, tile);
        } else {
          make_tile<L>(task, panel, count, rows, tile);
        }
        if (task.gated) {
          store_gated<L>(task, panel, rows, tile);
          continue;
        }
        for (int n = 0; n < count; ++n) {
          store_tile<L>(task, panel + n, rows, tile + 16 * rows.rows * n);
        }
      }
      panel += count;
    }
    from = to;
  }
}

}  // namespace tandem::kernels::cpu
