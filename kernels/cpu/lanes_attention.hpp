// Causal attention of a few queries that share keys and values, over sixteen lanes. Scores: lane =
// position of a KV block. Values: lane = dimension. Each key and value is read once for all queries
// of a tile; the whole row of scores is kept, so that the largest is known before the first
// exponential.
//
// A masked position weighs exactly zero, in the sum and before the values, so a query's bits do not
// depend on how far the tile's other queries see.
#pragma once

#include "kernels/cpu/kernel_table.hpp"
#include "kernels/cpu/lanes_math.hpp"

namespace tandem::kernels::cpu {

template <class L, kv_format Format>
TANDEM_INLINE typename L::floats load_kv(const std::byte* base, std::int64_t index) {
  if constexpr (Format == kv_format::f32) {
    return L::load(reinterpret_cast<const float*>(base) + index);
  } else {
    return L::load_half(base + 2 * index);
  }
}

// Fewer queries than this leave the cores waiting for keys.
inline constexpr int few_queries = 4;

// --- scores ------------------------------------------------------------------------------------

// Q queries from `first` against B blocks from `block`. With few queries memory is the limit and
// the blocks lie anywhere, so the next B blocks are fetched meanwhile: a head's keys and the values
// behind them, one or two lines for each dimension.
template <class L, kv_format Format, int Q, int B>
TANDEM_INLINE void score_blocks(const attention_task& task, int first, std::int32_t block) {
  constexpr bool fetch = Q <= few_queries;
  constexpr int line_bytes = 2 * kv_block_positions * (Format == kv_format::f32 ? 4 : 2);
  const std::byte* keys[B];
  const std::byte* next[B];
  typename L::floats sums[B * Q];
  TANDEM_UNROLL
  for (int b = 0; b < B; ++b) {
    keys[b] = task.base + task.blocks[block + b] * task.block_bytes;
    const std::int32_t after = block + B + b;
    next[b] = after < task.block_end ? task.base + task.blocks[after] * task.block_bytes : keys[b];
  }
  TANDEM_UNROLL
  for (int i = 0; i < B * Q; ++i) sums[i] = L::zero();
  const float* column = task.query_columns + first;
  for (int h = 0; h < task.head_size; ++h, column += task.count) {
    typename L::floats key[B];
    TANDEM_UNROLL
    for (int b = 0; b < B; ++b) {
      key[b] = load_kv<L, Format>(keys[b], h * kv_block_positions);
      if constexpr (fetch) {
        for (int line = 0; line < line_bytes; line += 64) {
          __builtin_prefetch(next[b] + h * line_bytes + line, 0, 2);
        }
      }
    }
    TANDEM_UNROLL
    for (int q = 0; q < Q; ++q) {
      const auto query = L::all(column[q]);
      TANDEM_UNROLL
      for (int b = 0; b < B; ++b) sums[b * Q + q] = L::fma(key[b], query, sums[b * Q + q]);
    }
  }
  TANDEM_UNROLL
  for (int b = 0; b < B; ++b) {
    const std::int64_t at = (block + b - task.block_begin) * kv_block_positions;
    TANDEM_UNROLL
    for (int q = 0; q < Q; ++q) {
      L::store(task.scores + (first + q) * task.score_stride + at, sums[b * Q + q]);
    }
  }
}

// With few queries several blocks go together: a lone sum would wait for each fma.
template <class L, kv_format Format, int Q>
void score(const attention_task& task, int first) {
  constexpr int most = L::score_queries / Q;
  constexpr int B = most >= 4 ? 4 : most;
  std::int32_t block = task.block_begin;
  for (; block + B <= task.block_end; block += B) {
    score_blocks<L, Format, Q, B>(task, first, block);
  }
  for (; block < task.block_end; ++block) score_blocks<L, Format, Q, 1>(task, first, block);
}

template <class L, kv_format Format, int Q = L::score_queries>
void score_chunk(const attention_task& task, int first, int count) {
  if constexpr (Q > 0) {
    if (count == Q) return score<L, Format, Q>(task, first);
    score_chunk<L, Format, Q - 1>(task, first, count);
  }
}

// --- softmax -----------------------------------------------------------------------------------

// Turns a row of scores into weights; returns 1 / their sum.
template <class L>
float weigh(const attention_task& task, int query) {
  float* row = task.scores + query * task.score_stride;
  const std::int32_t begin = task.visible_begin[query] - task.block_begin * kv_block_positions;
  const std::int32_t end = task.visible_end[query] - task.block_begin * kv_block_positions;
  const std::int32_t all = (task.block_end - task.block_begin) * kv_block_positions;
  // Only the blocks at either end of what a query sees need a mask.
  const auto visible = [begin, end](std::int32_t p, auto x, auto hidden) {
    return p >= begin && p + 16 <= end ? x : L::between(begin - p, end - p, x, hidden);
  };
  const auto lowest = L::all(-__builtin_inff());
  auto most = lowest;
  if (task.softcap > 0.0F) {
    const auto cap = L::all(task.softcap);
    for (std::int32_t p = 0; p < all; p += 16) {
      const auto bent = hyperbolic_tangent<L>(L::divide(L::load(row + p), cap));
      L::store(row + p, L::multiply(bent, cap));
    }
  }
  for (std::int32_t p = 0; p < all; p += 16) {
    most = L::greater(most, visible(p, L::load(row + p), lowest));
  }
  const auto largest = L::all(L::largest(most));
  auto sums = L::zero();
  for (std::int32_t p = 0; p < all; p += 16) {
    const auto e = exponential<L>(L::subtract(L::load(row + p), largest));
    const auto weight = visible(p, e, L::zero());
    L::store(row + p, weight);
    sums = L::add(sums, weight);
  }
  return 1.0F / L::sum(sums);
}

// --- values ------------------------------------------------------------------------------------

// Q queries from `first`, V vectors of dimensions from `dimension`; positions in order.
template <class L, kv_format Format, int Q, int V>
void add_values(const attention_task& task, int first, int dimension, const float* inverse) {
  const std::int64_t stride = (task.head_size + 15) / 16 * 16;
  const std::int64_t values = std::int64_t{kv_block_positions} * task.head_size;
  typename L::floats sums[Q * V];
  TANDEM_UNROLL
  for (int i = 0; i < Q * V; ++i) sums[i] = L::zero();
  const float* weights = task.scores + first * task.score_stride;
  for (std::int32_t block = task.block_begin; block < task.block_end; ++block) {
    const std::byte* base = task.base + task.blocks[block] * task.block_bytes;
    for (int p = 0; p < kv_block_positions; ++p, ++weights) {
      typename L::floats value[V];
      TANDEM_UNROLL
      for (int v = 0; v < V; ++v) {
        value[v] = load_kv<L, Format>(base, values + p * stride + dimension + 16 * v);
      }
      TANDEM_UNROLL
      for (int q = 0; q < Q; ++q) {
        const auto weight = L::all(weights[q * task.score_stride]);
        TANDEM_UNROLL
        for (int v = 0; v < V; ++v) sums[q * V + v] = L::fma(weight, value[v], sums[q * V + v]);
      }
    }
  }
  TANDEM_UNROLL
  for (int q = 0; q < Q; ++q) {
    const auto scale = L::all(inverse[first + q]);
    TANDEM_UNROLL
    for (int v = 0; v < V; ++v) {
      const int at = dimension + 16 * v;
      const int left = task.head_size - at;
      L::store(task.out[first + q] + at, L::multiply(sums[q * V + v], scale),
               left < 16 ? left : 16);
    }
  }
}

template <class L, kv_format Format, int Q, int V = L::value_vectors>
void value_columns(const attention_task& task, int first, int dimension, int vectors,
                   const float* inverse) {
  if constexpr (V > 0) {
    if (vectors == V) return add_values<L, Format, Q, V>(task, first, dimension, inverse);
    value_columns<L, Format, Q, V - 1>(task, first, dimension, vectors, inverse);
  }
}

template <class L, kv_format Format, int Q = L::value_queries>
void value_chunk(const attention_task& task, int first, int count, const float* inverse) {
  if constexpr (Q > 0) {
    if (count != Q) return value_chunk<L, Format, Q - 1>(task, first, count, inverse);
    const int vectors = (task.head_size + 15) / 16;
    for (int v = 0; v < vectors; v += L::value_vectors) {
      const int some = vectors - v < L::value_vectors ? vectors - v : L::value_vectors;
      value_columns<L, Format, Q>(task, first, 16 * v, some, inverse);
    }
  }
}

// -----------------------------------------------------------------------------------------------

template <class L, kv_format Format>
void attend_in(const attention_task& task) {
  const float scale = task.scale;
  const int stride = task.count;
  for (int q = 0; q < stride; ++q) {
    const float* query = task.queries[q];
    float* column = task.query_columns + q;
    for (int h = 0; h < task.head_size; ++h) column[h * stride] = query[h] * scale;
  }
  const auto chunks = [&task](int most, auto&& f) {
    for (int first = 0; first < task.count; first += most) {
      f(first, task.count - first < most ? task.count - first : most);
    }
  };
  chunks(L::score_queries,
         [&task](int first, int count) { score_chunk<L, Format>(task, first, count); });
  float inverse[attention_tile];
  for (int q = 0; q < task.count; ++q) inverse[q] = weigh<L>(task, q);
  chunks(L::value_queries,
         [&](int first, int count) { value_chunk<L, Format>(task, first, count, inverse); });
}

template <class L>
void attend(const attention_task& task) {
  if (task.format == kv_format::f32) return attend_in<L, kv_format::f32>(task);
  attend_in<L, kv_format::f16>(task);
}

}  // namespace tandem::kernels::cpu
