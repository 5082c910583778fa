#include "runtime/serve/prefill_pace.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>

namespace tandem::serve {
namespace {

constexpr double extra_share = 0.8;   // a mixed step may take so much more than one that decodes,
constexpr double extra_ns_min = 4e6;  // or this much longer: nobody perceives it,
constexpr double extra_ns_max = 4e7;  // and where many wait for few, up to this much
constexpr double settle = 0.25;       // weight of the newest step in an average
constexpr double trust = 0.1;         // and of rows that were cheaper than those before
constexpr int rows_sure = 8;  // so many tell what a row costs; of fewer a late thread tells more

std::size_t bucket_of(int rows) {
  return std::min<std::size_t>(15, std::bit_width(static_cast<unsigned>(std::max(rows, 1))) - 1U);
}

// A step's time as base + decode_rows * a + prompt_rows * b, none of them negative: the least
// squares of relative errors over the steps seen, by normal equations (Lawson & Hanson 1974, ch.
// 23, for the signs: what comes out negative is left out).
class cost_line {
 public:
  void add(double decode_rows, double prompt_rows, double ns) {
    const std::array<double, 3> x{1.0, decode_rows / scale[1], prompt_rows / scale[2]};
    for (std::size_t i = 0; i < 3; ++i) {
      for (std::size_t j = 0; j < 3; ++j) squares_[i][j] += x[i] * x[j] / (ns * ns);
      right_[i] += x[i] / ns;
    }
  }
  double of_decoding(double rows) const {
    const auto c = solve();
    return c[0] + c[1] * rows / scale[1];
  }

 private:
  static constexpr std::array<double, 3> scale{1.0, 16.0, 64.0};
  static constexpr double ridge = 1e-6;  // where steps do not tell one from another

  std::array<double, 3> solve() const {
    std::array<bool, 3> out{};
    for (;;) {
      const auto c = solve_without(out);
      const auto least = std::min_element(c.begin(), c.end());
      if (*least >= 0) return c;
      out[static_cast<std::size_t>(least - c.begin())] = true;
    }
  }
  // Gauss-Jordan; the ridge keeps every pivot above zero.
  std::array<double, 3> solve_without(const std::array<bool, 3>& out) const {
    auto m = squares_;
    auto r = right_;
    const double most = std::max({m[0][0], m[1][1], m[2][2]});
    for (std::size_t i = 0; i < 3; ++i) {
      m[i][i] += ridge * most;
      if (!out[i]) continue;
      for (std::size_t j = 0; j < 3; ++j) m[i][j] = m[j][i] = i == j ? 1.0 : 0.0;
      r[i] = 0;
    }
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t k = 0; k < 3; ++k) {
        if (k == i) continue;
        const double times = m[k][i] / m[i][i];
        for (std::size_t j = 0; j < 3; ++j) m[k][j] -= times * m[i][j];
        r[k] -= times * r[i];
      }
    for (std::size_t i = 0; i < 3; ++i) r[i] = out[i] ? 0.0 : r[i] / m[i][i];
    return r;
  }

  std::array<std::array<double, 3>, 3> squares_{};
  std::array<double, 3> right_{};
};

}  // namespace

// While prompts wait no step decodes only: then the steps that do both tell what decoding takes.
double prefill_pace::usual_ns(int decode_rows) const {
  if (const auto& same = decoding_[bucket_of(decode_rows)]; same.ns > 0) return same.ns;
  cost_line line;
  bool any = false;
  const auto add = [&](const step& one) {
    if (one.ns <= 0) return;
    line.add(one.decode_rows, one.prompt_rows, one.ns);
    any = true;
  };
  for (const auto& one : decoding_) add(one);
  for (const auto& one : mixed_) add(one);
  return any ? line.of_decoding(decode_rows) : 0;
}

void prefill_pace::step_done(int decode_rows, int prompt_rows, std::int64_t took_ns) {
  const auto took = static_cast<double>(took_ns);
  if (took <= 0) return;
  if (prompt_rows <= 0) {
    auto& average = decoding_[bucket_of(decode_rows)];
    const double weight = average.ns == 0 ? 1.0 : settle;
    average.decode_rows += weight * (decode_rows - average.decode_rows);
    average.ns += weight * (took - average.ns);
    return;
  }
  mixed_[mixed_count_++ % mixed_.size()] = {static_cast<double>(decode_rows),
                                            static_cast<double>(prompt_rows), took};
  const double usual = decode_rows > 0 ? usual_ns(decode_rows) : 0;
  const double row = std::max(took - usual, 0.0) / prompt_rows;
  // Dearer rows count at once, cheaper ones by and by: a pause is worse than a slower prompt.
  const double dearer = std::clamp(static_cast<double>(prompt_rows) / rows_sure, settle, 1.0);
  row_ns_ += (row_ns_ == 0 ? 1.0 : row > row_ns_ ? dearer : trust) * (row - row_ns_);
}

int prefill_pace::rows_allowed(int decode_rows, int readers) const {
  if (row_ns_ == 0) return rows_max_;  // nothing measured yet
  const double usual = usual_ns(decode_rows);
  const double smooth = std::max(extra_share * usual, extra_ns_min);
  const double crowd = static_cast<double>(readers) / std::max(decode_rows, 1);
  const double extra = std::max(smooth, std::min(crowd * smooth, extra_ns_max));
  return std::clamp(static_cast<int>(std::min(extra / row_ns_, 1e6)), 1, rows_max_);
}

}  // namespace tandem::serve
