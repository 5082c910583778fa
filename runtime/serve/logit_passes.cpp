#include "runtime/serve/logit_passes.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

namespace tandem::serve {
namespace {

constexpr float lowest = -std::numeric_limits<float>::infinity();
constexpr std::size_t lanes = 16;

// The largest of up to a few hundred values.
float largest_of(std::span<const float> x) {
  std::array<float, lanes> best;
  best.fill(lowest);
  std::size_t i = 0;
  for (; i + lanes <= x.size(); i += lanes) {
    for (std::size_t j = 0; j < lanes; ++j) best[j] = x[i + j] > best[j] ? x[i + j] : best[j];
  }
  for (; i < x.size(); ++i) best[0] = x[i] > best[0] ? x[i] : best[0];
  return *std::max_element(best.begin(), best.end());
}

// Calls f(first id, values) for consecutive pieces of the row.
template <class Span, class F>
void by_piece(Span row_V, std::size_t size, F&& f) {
  for (std::size_t first = 0; first < row_V.size(); first += size) {
    f(first, row_V.subspan(first, std::min(size, row_V.size() - first)));
  }
}

double sum_of(std::span<const std::uint32_t> weights) {
  std::array<double, 8> sums{};
  std::size_t i = 0;
  for (; i + sums.size() <= weights.size(); i += sums.size()) {
    for (std::size_t j = 0; j < sums.size(); ++j) {
      sums[j] += static_cast<double>(std::bit_cast<float>(weights[i + j]));
    }
  }
  for (; i < weights.size(); ++i) sums[0] += static_cast<double>(std::bit_cast<float>(weights[i]));
  double sum = 0.0;
  for (const double s : sums) sum += s;
  return sum;
}

struct better {
  std::span<const float> logits_V;
  bool operator()(std::uint32_t a, std::uint32_t b) const {
    return logits_V[a] != logits_V[b] ? logits_V[a] > logits_V[b] : a < b;
  }
};

// What exp_clamped gives for all that is too far below: nothing.
constexpr float vanishing = 2e-38F;

// exp(a) for a in [-87, 0].
inline float exp_within(float a) {
  // a = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts so that r loses no bits.
  const auto n = static_cast<std::int32_t>(a * 1.44269504F - 0.5F);
  const auto whole = static_cast<float>(n);
  const float r = (a - whole * 0.693359375F) + whole * 2.12194440e-4F;
  // Taylor to r^7: the rest is under 6e-9.
  float y = 1.0F / 5040;
  y = y * r + 1.0F / 720;
  y = y * r + 1.0F / 120;
  y = y * r + 1.0F / 24;
  y = y * r + 1.0F / 6;
  y = y * r + 0.5F;
  y = y * r + 1.0F;
  y = y * r + 1.0F;
  return y * std::bit_cast<float>((n + 127) << 23);
}

inline float clamped(float x) { return x > -87.0F ? x : -87.0F; }  // NaN too is far below

constexpr std::size_t piece_size = 512;

// out[i] = exp((x_i - top) * inverse_temperature), `vanishing` or less for what is far below. Two
// loops, because in one the compiler branches on the clamp and vectorizes nothing.
void exp_piece(std::span<const float> x, float top, float inverse_temperature,
               std::array<float, piece_size>& out) {
  for (std::size_t i = 0; i < x.size(); ++i) out[i] = clamped((x[i] - top) * inverse_temperature);
  for (std::size_t i = 0; i < x.size(); ++i) out[i] = exp_within(out[i]);
}

}  // namespace

float exp_nonpositive(float x) {
  const float y = exp_within(clamped(x));
  return y > vanishing ? y : 0.0F;
}

peak largest(std::span<const float> logits_V) {
  peak best{lowest, 0};
  std::span<const float> where;
  by_piece(logits_V, piece_size, [&](std::size_t first, std::span<const float> piece) {
    const float top = largest_of(piece);
    if (!(top > best.value)) return;
    best = {top, static_cast<std::uint32_t>(first)};
    where = piece;
  });
  for (std::size_t i = 0; i < where.size(); ++i) {
    if (where[i] == best.value) {
      best.id += static_cast<std::uint32_t>(i);
      break;
    }
  }
  return best;
}

double sum_of_exp(std::span<const float> logits_V, float top) {
  double total = 0.0;
  std::array<float, piece_size> weights{};
  by_piece(logits_V, piece_size, [&](std::size_t, std::span<const float> piece) {
    exp_piece(piece, top, 1.0F, weights);
    std::array<float, lanes> sums{};
    std::size_t i = 0;
    for (; i + lanes <= piece.size(); i += lanes) {
      for (std::size_t j = 0; j < lanes; ++j) sums[j] += weights[i + j];
    }
    for (; i < piece.size(); ++i) sums[0] += weights[i];
    for (const float s : sums) total += static_cast<double>(s);
  });
  return total;
}

void weigh(std::span<const float> logits_V, float top, float inverse_temperature, float least,
           std::span<std::uint32_t> weights_V) {
  const float bound = std::max(least, vanishing);
  std::array<float, piece_size> weights{};
  by_piece(logits_V, piece_size, [&](std::size_t first, std::span<const float> piece) {
    exp_piece(piece, top, inverse_temperature, weights);
    std::uint32_t* out = weights_V.data() + first;
    for (std::size_t i = 0; i < piece.size(); ++i) {
      out[i] = std::bit_cast<std::uint32_t>(weights[i] >= bound ? weights[i] : 0.0F);
    }
  });
}

std::vector<std::uint32_t> top_ids(std::span<const float> logits_V, std::size_t count) {
  constexpr std::size_t narrow = 64;  // small: few values stand beside a large one
  count = std::min(count, logits_V.size());
  std::vector<std::uint32_t> ids;
  if (count == 0) return ids;
  // At least `count` values reach the count-th largest of the pieces' maxima.
  std::vector<float> tops;
  by_piece(logits_V, narrow,
           [&](std::size_t, std::span<const float> piece) { tops.push_back(largest_of(piece)); });
  float bound = lowest;
  if (count < tops.size()) {
    std::vector<float> order = tops;
    const auto nth = order.begin() + static_cast<std::ptrdiff_t>(count) - 1;
    std::nth_element(order.begin(), nth, order.end(), std::greater<>());
    bound = *nth;
  }
  by_piece(logits_V, narrow, [&](std::size_t first, std::span<const float> piece) {
    if (tops[first / narrow] < bound) return;
    for (std::size_t i = 0; i < piece.size(); ++i) {
      if (piece[i] >= bound && piece[i] > lowest)
        ids.push_back(static_cast<std::uint32_t>(first + i));
    }
  });
  count = std::min(count, ids.size());
  const auto end = ids.begin() + static_cast<std::ptrdiff_t>(count);
  if (count < ids.size()) std::nth_element(ids.begin(), end, ids.end(), better{logits_V});
  std::sort(ids.begin(), end, better{logits_V});
  ids.resize(count);
  return ids;
}

void keep_nucleus(std::span<const float> logits_V, float top, float inverse_temperature,
                  double top_p, std::span<std::uint32_t> weights_V) {
  constexpr int last_bucket = 2047;
  const auto bucket = [&](std::uint32_t id) {  // only of ids with weight: within 87 of the top
    const float distance = (top - logits_V[id]) * inverse_temperature;
    return std::min(static_cast<int>(distance * 64.0F), last_bucket);
  };
  const auto weight = [&](std::uint32_t id) {
    return static_cast<double>(std::bit_cast<float>(weights_V[id]));
  };
  // All that weigh less than (1 - p) / V of the whole do not make up 1 - p together: the cut lies
  // above them, and a real model's tail is mostly they. Compacted without branches.
  double wanted = top_p * sum_of(weights_V);
  const double spare = (1.0 - top_p) * wanted / top_p / static_cast<double>(weights_V.size());
  const auto bound =
      std::bit_cast<std::uint32_t>(std::max(static_cast<float>(spare * 0.99), vanishing));
  std::vector<std::uint32_t> ids(weights_V.size() + 1);
  std::size_t count = 0;
  for (std::size_t i = 0; i < weights_V.size(); ++i) {
    ids[count] = static_cast<std::uint32_t>(i);
    count += weights_V[i] >= bound ? 1 : 0;  // positive floats order as their bits do
  }
  ids.resize(count);
  std::array<double, last_bucket + 1> mass{};
  for (const std::uint32_t id : ids) mass[static_cast<std::size_t>(bucket(id))] += weight(id);
  int cut_bucket = 0;
  while (cut_bucket < last_bucket && mass[static_cast<std::size_t>(cut_bucket)] < wanted) {
    wanted -= mass[static_cast<std::size_t>(cut_bucket++)];
  }
  std::erase_if(ids, [&](std::uint32_t id) { return bucket(id) != cut_bucket; });
  std::sort(ids.begin(), ids.end(), better{logits_V});
  // The largest always stays, whatever top_p says.
  double held = 0.0;
  std::size_t kept = 0;
  while (kept < ids.size() && (kept == 0 || held < wanted)) held += weight(ids[kept++]);
  if (kept == 0) return;
  const float least = logits_V[ids[kept - 1]];
  for (std::size_t i = 0; i < weights_V.size(); ++i) {
    weights_V[i] = logits_V[i] >= least ? weights_V[i] : 0;
  }
  for (std::size_t i = kept; i < ids.size() && logits_V[ids[i]] == least; ++i) {
    weights_V[ids[i]] = 0;
  }
}

std::uint32_t draw(std::span<const std::uint32_t> weights_V, double u) {
  std::vector<double> sums;
  sums.reserve(weights_V.size() / piece_size + 1);
  double total = 0.0;
  by_piece(weights_V, piece_size, [&](std::size_t, std::span<const std::uint32_t> piece) {
    sums.push_back(sum_of(piece));
    total += sums.back();
  });
  const double target = u * total;
  double before = 0.0;
  std::size_t piece = 0;
  while (piece + 1 < sums.size() && before + sums[piece] <= target) before += sums[piece++];
  // Rounding may leave the target beyond this piece's last weight: that one is meant then.
  std::uint32_t chosen = 0;
  const std::size_t end = std::min((piece + 1) * piece_size, weights_V.size());
  for (std::size_t i = piece * piece_size; i < end; ++i) {
    if (weights_V[i] == 0) continue;
    chosen = static_cast<std::uint32_t>(i);
    before += static_cast<double>(std::bit_cast<float>(weights_V[i]));
    if (before > target) break;
  }
  return chosen;
}

}  // namespace tandem::serve
