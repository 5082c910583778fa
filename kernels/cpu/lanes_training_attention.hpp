// Backward of attention over one span and query head, in tiles of keys and queries (after Dao 2023,
// arXiv:2307.08691): probabilities are made again from the log-sum-exp, tile by tile, and five
// products pass over each tile while it is in the first cache. Sums over queries and keys are
// chains in order of position, whatever the tiles' sizes: they are stored and taken up again.
//
// A tile of 64 keys and about as many queries reads 4 x 64 x H floats of queries and their
// gradients for 10 x 64 x 64 x H operations: twenty operations a byte.
#pragma once

#include "kernels/cpu/lanes_products.hpp"
#include "kernels/cpu/lanes_training.hpp"

namespace tandem::kernels::cpu {

inline constexpr int backward_tile = 64;  // keys of a tile, and the most queries

// Where the left factor's element (row r, k) lies: strips of rows as kernel_table.hpp has them, or
// a tile of scores with k down its rows or along them.
enum class left_factor { strips, down, along };

// c[r][16 n ...] += or = sum over k of a(r, k) * b[k * b_step + n * b_panel ...].
struct small_product {
  const float* a;
  const float* b;
  std::int64_t b_step;
  std::int64_t b_panel;
  std::int64_t depth;
  float* c;
  std::int64_t c_stride;
  bool add;
};

template <class L, left_factor Left, int R, int N>
TANDEM_INLINE void small_tile(const small_product& p, std::int64_t row, std::int64_t panel) {
  constexpr int step = Left == left_factor::strips ? R
                       : Left == left_factor::down ? backward_tile
                                                   : 1;
  constexpr int across = Left == left_factor::along ? backward_tile : 1;
  const float* a = p.a + row * (Left == left_factor::strips ? p.depth : across);
  const float* b = p.b + panel * p.b_panel;
  float* c = p.c + row * p.c_stride + panel * 16;
  typename L::floats sums[N * R];
  TANDEM_UNROLL
  for (int r = 0; r < R; ++r) {
    TANDEM_UNROLL
    for (int n = 0; n < N; ++n) {
      sums[n * R + r] = p.add ? L::load(c + r * p.c_stride + 16 * n) : L::zero();
    }
  }
  for (std::int64_t k = 0; k < p.depth; ++k, a += step, b += p.b_step) {
    typename L::floats w[N];
    TANDEM_UNROLL
    for (int n = 0; n < N; ++n) w[n] = L::load(b + n * p.b_panel);
    TANDEM_UNROLL
    for (int r = 0; r < R; ++r) {
      const auto x = L::all(a[r * across]);
      TANDEM_UNROLL
      for (int n = 0; n < N; ++n) sums[n * R + r] = L::fma(w[n], x, sums[n * R + r]);
    }
  }
  TANDEM_UNROLL
  for (int r = 0; r < R; ++r) {
    TANDEM_UNROLL
    for (int n = 0; n < N; ++n) L::store(c + r * p.c_stride + 16 * n, sums[n * R + r]);
  }
}

template <class L, left_factor Left, int R>
void small_rows(const small_product& p, std::int64_t row, std::int64_t panels) {
  constexpr int N = 2 * R * L::registers_per_value <= L::registers - 4 ? 2 : 1;
  std::int64_t panel = 0;
  for (; panel + N <= panels; panel += N) small_tile<L, Left, R, N>(p, row, panel);
  if constexpr (N > 1) {
    for (; panel < panels; ++panel) small_tile<L, Left, R, 1>(p, row, panel);
  }
}

// Strips are as `plan_strips` cuts them: the tallest, then 8, 4, 2 and 1 rows.
template <class F>
TANDEM_INLINE void for_strips(std::int64_t rows, int tallest, F f) {
  for (std::int64_t row = 0; row < rows;) {
    int height = tallest;
    if (rows - row < tallest) {
      height = 8;
      while (height > rows - row || height > tallest) height /= 2;
    }
    f(row, height);
    row += height;
  }
}

template <class L, left_factor Left>
void multiply_small(const small_product& p, std::int64_t rows, std::int64_t panels) {
  for_strips(rows, L::float_strip_rows, [&](std::int64_t row, int height) {
    switch (height) {
      case 1:
        return small_rows<L, Left, 1>(p, row, panels);
      case 2:
        return small_rows<L, Left, 2>(p, row, panels);
      case 4:
        return small_rows<L, Left, 4>(p, row, panels);
      case 8:
        return small_rows<L, Left, 8>(p, row, panels);
      default:
        return small_rows<L, Left, L::float_strip_rows>(p, row, panels);
    }
  });
}

// The operands of one span and head, laid out for the products.
struct backward_operands {
  std::int64_t wide;  // H rounded up to 16
  float* key_panels;  // sixteen keys each: [H][16]
  float* value_panels;
  float* query_strips;     // [H][R]
  float* gradient_strips;  // of dout
  float* keys;             // rows of `wide`
  float* queries;
  float* gradients;
  float* query_gradients;
  float* along;   // per query dout . out
  float* scores;  // tiles; they become probabilities
  float* slopes;  // and the gradients of scores
};

template <class L>
backward_operands lay_out(const attention_backward_task& task) {
  const std::int64_t H = task.head_size;
  const std::int64_t wide = (H + 15) / 16 * 16;
  const std::int64_t part = (task.rows + backward_tile) * wide;
  float* at = task.scratch;
  const auto take = [&at](std::int64_t floats) {
    float* from = at;
    at += (floats + 15) / 16 * 16;
    return from;
  };
  backward_operands o{wide,
                      take(part),
                      take(part),
                      take(part),
                      take(part),
                      take(part),
                      take(part),
                      take(part),
                      take(part),
                      take(task.rows),
                      take(backward_tile * backward_tile),
                      take(backward_tile * backward_tile)};
  for (std::int64_t t = 0; t < task.rows; t += 16) {
    const std::int64_t count = task.rows - t < 16 ? task.rows - t : 16;
    turn_rows<L>(task.k + t * task.qkv_stride, task.qkv_stride, count, H, o.key_panels + t * H);
    turn_rows<L>(task.v + t * task.qkv_stride, task.qkv_stride, count, H, o.value_panels + t * H);
  }
  for_strips(task.rows, L::float_strip_rows, [&](std::int64_t row, int height) {
    interleave_strip<L>(task.q + row * task.qkv_stride, task.qkv_stride, height, H,
                        o.query_strips + row * H);
    interleave_strip<L>(task.dout + row * task.dout_stride, task.dout_stride, height, H,
                        o.gradient_strips + row * H);
  });
  const int columns = task.head_size;
  const int width = static_cast<int>(wide);
  copy_columns<L>(task.k, task.qkv_stride, task.rows, columns, width, o.keys);
  copy_columns<L>(task.q, task.qkv_stride, task.rows, columns, width, o.queries);
  copy_columns<L>(task.dout, task.dout_stride, task.rows, columns, width, o.gradients);
  for (std::int64_t i = 0; i < task.rows * wide; i += 16)
    L::store(o.query_gradients + i, L::zero());
  for (std::int64_t t = 0; t < task.rows; ++t) {
    o.along[t] = dot<L>(task.dout + t * task.dout_stride, task.out + t * task.out_stride, H);
  }
  return o;
}

// From scores and dout . v to probabilities and the gradients of scores; exact zeros where a query
// does not see a key.
template <class L>
void weigh_backward(const attention_backward_task& task, const backward_operands& o,
                    std::int64_t first_key, std::int64_t panels, std::int64_t first_query,
                    std::int64_t queries) {
  const auto scale = L::all(task.scale);
  for (std::int64_t i = 0; i < queries; ++i) {
    const std::int64_t query = first_query + i;
    const std::int64_t seen = task.window > 0 ? query + 1 - task.window : 0;
    const auto lse = L::all(-task.lse[query * task.lse_stride]);
    const auto along = L::all(o.along[query]);
    for (std::int64_t panel = 0; panel < panels; ++panel) {
      float* score = o.scores + i * backward_tile + 16 * panel;
      float* slope = o.slopes + i * backward_tile + 16 * panel;
      const std::int64_t key = first_key + 16 * panel;
      auto p = exponential<L>(L::fma(L::load(score), scale, lse));
      auto d = L::multiply(scale, L::multiply(p, L::subtract(L::load(slope), along)));
      if (seen > key || query + 1 < key + 16) {
        const int begin = seen > key ? static_cast<int>(seen - key < 16 ? seen - key : 16) : 0;
        const int end =
            query + 1 < key + 16 ? static_cast<int>(query + 1 > key ? query + 1 - key : 0) : 16;
        p = L::between(begin, end, p, L::zero());
        d = L::between(begin, end, d, L::zero());
      }
      L::store(score, p);
      L::store(slope, d);
    }
  }
}

// --- forward -----------------------------------------------------------------------------------

// Turns tiles of scores into weights; returns their sums and largest. Tile i holds keys from
// 64 (first_tile + i) on, one row of 64 for each query.
template <class L>
void weigh_forward(const packed_attention_task& task, float* scores, std::int64_t first_tile,
                   std::int64_t first_query, std::int64_t queries, float* largest, float* sums) {
  constexpr std::int64_t tile = backward_tile;
  for (std::int64_t i = 0; i < queries; ++i) {
    const std::int64_t end = first_query + i + 1;
    const std::int64_t begin = task.window > 0 && end > task.window ? end - task.window : 0;
    float* row = scores + i * tile - first_tile * tile * tile;
    const auto at = [&](std::int64_t key) { return row + key / tile * tile * tile + key % tile; };
    // Every panel from the tiles' first key on is weighed; those not seen become zero.
    const std::int64_t last = (first_query + queries + 15) / 16 * 16;
    const auto lowest = L::all(-__builtin_inff());
    const auto seen = [&](std::int64_t key, auto x, auto hidden) __attribute__((always_inline)) {
      if (key >= begin && key + 16 <= end) return x;
      const std::int64_t from = begin - key < 16 ? begin - key : 16;
      const std::int64_t to = end - key > 0 ? end - key : 0;
      return L::between(from > 0 ? static_cast<int>(from) : 0, to < 16 ? static_cast<int>(to) : 16,
                        x, hidden);
    };
    const auto scale = L::all(task.scale);
    auto most = lowest;
    for (std::int64_t key = first_tile * tile; key < end; key += 16) {
      const auto score = L::multiply(L::load(at(key)), scale);
      L::store(at(key), score);
      most = L::greater(most, seen(key, score, lowest));
    }
    largest[i] = L::largest(most);
    const auto top = L::all(largest[i]);
    auto sum = L::zero();
    for (std::int64_t key = first_tile * tile; key < end; key += 16) {
      const auto e = exponential<L>(L::subtract(L::load(at(key)), top));
      const auto weight = seen(key, e, L::zero());
      L::store(at(key), weight);
      sum = L::add(sum, weight);
    }
    for (std::int64_t key = (end + 15) / 16 * 16; key < last; key += 16) {
      L::store(at(key), L::zero());
    }
    sums[i] = L::sum(sum);
  }
}

// The whole rows of scores of a strip of queries are kept, so that the largest is known before the
// first exponential; keys and values are read once for about sixty queries.
template <class L>
void packed_attention(const packed_attention_task& task) {
  constexpr std::int64_t tile = backward_tile;
  constexpr std::int64_t most_queries = tile / L::float_strip_rows * L::float_strip_rows;
  const std::int64_t H = task.head_size;
  const std::int64_t wide = (H + 15) / 16 * 16;
  float* keys = task.scratch;
  float* values = keys + (task.end_row + tile) * wide;
  float* scores = values + (task.end_row + tile) * wide;
  float* queries_at = scores + (task.end_row + tile) * tile;
  float* sums_at = queries_at + tile * wide;
  const auto first_key = [&](std::int64_t row) {
    const std::int64_t begin = task.window > 0 && row + 1 > task.window ? row + 1 - task.window : 0;
    return begin / tile * tile;
  };
  for (std::int64_t t = first_key(task.first_row); t < task.end_row; t += 16) {
    const std::int64_t count = task.end_row - t < 16 ? task.end_row - t : 16;
    turn_rows<L>(task.k + t * task.qkv_stride, task.qkv_stride, count, H, keys + t * H);
    copy_columns<L>(task.v + t * task.qkv_stride, task.qkv_stride, count, task.head_size,
                    static_cast<int>(wide), values + t * wide);
  }
  for (int head = 0; head < task.heads; ++head) {
    for (std::int64_t query = task.first_row; query < task.end_row; query += most_queries) {
      const std::int64_t queries =
          task.end_row - query < most_queries ? task.end_row - query : most_queries;
      const float* q = task.q + query * task.qkv_stride + head * H;
      for_strips(queries, L::float_strip_rows, [&](std::int64_t row, int height) {
        interleave_strip<L>(q + row * task.qkv_stride, task.qkv_stride, height, H,
                            queries_at + row * H);
      });
      const std::int64_t from = first_key(query);
      const std::int64_t end = query + queries;
      for (std::int64_t key = from; key < end; key += tile) {
        const std::int64_t panels = end - key < tile ? (end - key + 15) / 16 : tile / 16;
        const small_product product{
            queries_at, keys + key * H, 16, 16 * H, H, scores + (key - from) * tile, tile, false};
        multiply_small<L, left_factor::strips>(product, queries, panels);
      }
      float largest[tile];
      float sums[tile];
      weigh_forward<L>(task, scores, from / tile, query, queries, largest, sums);
      for (std::int64_t key = from; key < end; key += tile) {
        const std::int64_t depth = end - key < tile ? end - key : tile;
        const small_product product{scores + (key - from) * tile,
                                    values + key * wide,
                                    wide,
                                    16,
                                    depth,
                                    sums_at,
                                    wide,
                                    key > from};
        multiply_small<L, left_factor::along>(product, queries, wide / 16);
      }
      for (std::int64_t i = 0; i < queries; ++i) {
        const auto inverse = L::all(1.0F / sums[i]);
        float* out = task.out + (query + i) * task.out_stride + head * H;
        for_lanes(H, [&](std::int64_t h, int n) {
          store_lanes<L>(out + h, L::multiply(L::load(sums_at + i * wide + h), inverse), n);
        });
        task.lse[(query + i) * task.lse_stride + head] = largest[i] + __builtin_logf(sums[i]);
      }
    }
  }
}

// --- backward ----------------------------------------------------------------------------------

template <class L>
void attention_backward(const attention_backward_task& task) {
  const std::int64_t H = task.head_size;
  constexpr std::int64_t tile = backward_tile;
  constexpr std::int64_t R = L::float_strip_rows;
  constexpr std::int64_t most_queries = tile / R * R;
  const backward_operands o = lay_out<L>(task);
  const std::int64_t dimensions = o.wide / 16;
  for (std::int64_t key = 0; key < task.rows; key += tile) {
    const std::int64_t keys = task.rows - key < tile ? task.rows - key : tile;
    const std::int64_t panels = (keys + 15) / 16;
    // Queries that see any of these keys: from the first key's own on, as far as the window lets.
    std::int64_t end = task.rows;
    if (task.window > 0 && key + keys - 1 + task.window < end) end = key + keys - 1 + task.window;
    bool add = false;
    for (std::int64_t query = key / R * R; query < end; query += most_queries, add = true) {
      // Whole strips: the tail of the span's strips ends where the span does.
      std::int64_t queries = task.rows - query < most_queries ? task.rows - query : most_queries;
      const small_product scores{
          o.query_strips + query * H, o.key_panels + key * H, 16, 16 * H, H, o.scores, tile, false};
      multiply_small<L, left_factor::strips>(scores, queries, panels);
      const small_product slopes{o.gradient_strips + query * H,
                                 o.value_panels + key * H,
                                 16,
                                 16 * H,
                                 H,
                                 o.slopes,
                                 tile,
                                 false};
      multiply_small<L, left_factor::strips>(slopes, queries, panels);
      weigh_backward<L>(task, o, key, panels, query, queries);
      const small_product dv{o.scores, o.gradients + query * o.wide, o.wide, 16,
                             queries,  task.dv + key * o.wide,       o.wide, add};
      multiply_small<L, left_factor::down>(dv, keys, dimensions);
      const small_product dk{o.slopes, o.queries + query * o.wide, o.wide, 16,
                             queries,  task.dk + key * o.wide,     o.wide, add};
      multiply_small<L, left_factor::down>(dk, keys, dimensions);
      const small_product dq{o.slopes, o.keys + key * o.wide,
                             o.wide,   16,
                             keys,     o.query_gradients + query * o.wide,
                             o.wide,   true};
      multiply_small<L, left_factor::along>(dq, queries, dimensions);
    }
  }
  for (std::int64_t t = 0; t < task.rows; ++t) {
    for_lanes(H, [&](std::int64_t i, int n) {
      store_lanes<L>(task.dq + t * task.dq_stride + i, L::load(o.query_gradients + t * o.wide + i),
                     n);
    });
  }
}

template <class L>
inline constexpr training_kernels training_of = {
    .copy_columns = copy_columns<L>,
    .turn_rows = turn_rows<L>,
    .turn_weights = turn_weights<L>,
    .column_sums = column_sums<L>,
    .inverse_rms = inverse_rms<L>,
    .rms_norm_backward = rms_norm_backward<L>,
    .turn_head = turn_head<L>,
    .activate = activate<L>,
    .activate_backward = activate_backward<L>,
    .observe = observe<L>,
    .cross_entropy_backward = cross_entropy_backward<L>,
    .adamw = adamw<L>,
    .sum_of_squares = sum_of_squares<L>,
    .dot = dot<L>,
    .scale = scale<L>,
    .add_scaled = add_scaled<L>,
    .packed_attention = packed_attention<L>,
    .attention_backward = attention_backward<L>,
};

}  // namespace tandem::kernels::cpu
