#include "runtime/serve/logit_passes.hpp"

#include "kernels/draw_math.hpp"
#include "kernels/ensure.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

namespace tandem::serve {
namespace {

namespace drawing = kernels::drawing;

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

std::uint64_t units_of(std::span<const std::uint32_t> weights) {
  std::array<std::uint64_t, 8> sums{};
  std::size_t i = 0;
  for (; i + sums.size() <= weights.size(); i += sums.size()) {
    for (std::size_t j = 0; j < sums.size(); ++j) {
      sums[j] += drawing::units(std::bit_cast<float>(weights[i + j]));
    }
  }
  for (; i < weights.size(); ++i) sums[0] += drawing::units(std::bit_cast<float>(weights[i]));
  std::uint64_t sum = 0;
  for (const std::uint64_t s : sums) sum += s;
  return sum;
}

struct better {
  std::span<const float> logits_V;
  bool operator()(std::uint32_t a, std::uint32_t b) const {
    return logits_V[a] != logits_V[b] ? logits_V[a] > logits_V[b] : a < b;
  }
};

constexpr std::size_t piece_size = 512;

// out[i] = exp((x_i - top) * inverse_temperature), `vanishing` or less for what is far below. Two
// loops, because in one the compiler branches on the clamp and vectorizes nothing.
void exp_piece(std::span<const float> x, float top, float inverse_temperature,
               std::array<float, piece_size>& out) {
  for (std::size_t i = 0; i < x.size(); ++i)
    out[i] = drawing::clamped((x[i] - top) * inverse_temperature);
  for (std::size_t i = 0; i < x.size(); ++i) out[i] = drawing::exp_within(out[i]);
}

}  // namespace

float exp_nonpositive(float x) {
  const float y = drawing::exp_within(drawing::clamped(x));
  return y > drawing::vanishing ? y : 0.0F;
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
  const float bound = std::max(least, drawing::vanishing);
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
  const auto bucket = [&](std::uint32_t id) {
    return static_cast<std::size_t>(drawing::bucket_of(logits_V[id], top, inverse_temperature));
  };
  const auto weight = [&](std::uint32_t id) {
    return drawing::units(std::bit_cast<float>(weights_V[id]));
  };
  const std::uint64_t total = units_of(weights_V);
  const std::uint64_t share = drawing::share_of_one(top_p);
  std::uint64_t wanted = drawing::nucleus_wanted(total, share);
  // The tail is left out, by a bound rounded down; compacted without branches.
  const std::uint64_t floor = drawing::nucleus_floor(total, share, std::ssize(weights_V));
  const float least = std::max(static_cast<float>(static_cast<double>(floor) * 0x1.0p-42 * 0.999),
                               drawing::vanishing);
  const auto bound = std::bit_cast<std::uint32_t>(least);
  std::vector<std::uint32_t> ids(weights_V.size() + 1);
  std::size_t count = 0;
  for (std::size_t i = 0; i < weights_V.size(); ++i) {
    ids[count] = static_cast<std::uint32_t>(i);
    count += weights_V[i] >= bound ? 1 : 0;  // positive floats order as their bits do
  }
  ids.resize(count);
  std::array<std::uint64_t, drawing::buckets> mass{};
  for (const std::uint32_t id : ids) mass[bucket(id)] += weight(id);
  std::size_t cut = 0;
  while (cut + 1 < mass.size() && mass[cut] < wanted) wanted -= mass[cut++];
  std::erase_if(ids, [&](std::uint32_t id) { return bucket(id) != cut; });
  std::sort(ids.begin(), ids.end(), better{logits_V});
  std::uint64_t held = 0;
  std::size_t kept = 0;
  while (kept < ids.size() && held < wanted) held += weight(ids[kept++]);
  if (kept == 0) return;
  const float last = logits_V[ids[kept - 1]];
  for (std::size_t i = 0; i < weights_V.size(); ++i) {
    weights_V[i] = logits_V[i] >= last ? weights_V[i] : 0;
  }
  for (std::size_t i = kept; i < ids.size() && logits_V[ids[i]] == last; ++i) {
    weights_V[ids[i]] = 0;
  }
}

std::uint32_t draw(std::span<const std::uint32_t> weights_V, double u) {
  ensure(std::ssize(weights_V) <= drawing::most_weights, "a vocabulary whose weights can be added");
  std::vector<std::uint64_t> sums;
  sums.reserve(weights_V.size() / piece_size + 1);
  std::uint64_t total = 0;
  by_piece(weights_V, piece_size, [&](std::size_t, std::span<const std::uint32_t> piece) {
    sums.push_back(units_of(piece));
    total += sums.back();
  });
  const std::uint64_t target = drawing::part_of(total, drawing::share_of_one(u));
  std::uint64_t before = 0;
  std::size_t piece = 0;
  while (piece + 1 < sums.size() && before + sums[piece] <= target) before += sums[piece++];
  const std::size_t end = std::min((piece + 1) * piece_size, weights_V.size());
  std::size_t i = piece * piece_size;
  for (; i + 1 < end; ++i) {
    before += drawing::units(std::bit_cast<float>(weights_V[i]));
    if (before > target) break;
  }
  return static_cast<std::uint32_t>(i);
}

}  // namespace tandem::serve
