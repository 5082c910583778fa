#include "runtime/serve/prefill_pace.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>

namespace tandem::serve {
namespace {

constexpr double extra_share = 0.8;   // a mixed step may take so much more than one that decodes,
constexpr double extra_ns_min = 4e6;  // or this much longer: nobody perceives it
constexpr double settle = 0.25;       // weight of the newest step in an average
constexpr double trust = 0.1;         // and of rows that were cheaper than those before

std::size_t bucket_of(int rows) {
  return std::min<std::size_t>(15, std::bit_width(static_cast<unsigned>(std::max(rows, 1))) - 1U);
}

}  // namespace

double prefill_pace::usual_ns(int decode_rows) const {
  const auto wanted = bucket_of(decode_rows);
  for (std::size_t b = wanted + 1; b-- > 0;)
    if (decode_ns_[b] > 0) return decode_ns_[b];
  for (std::size_t b = wanted + 1; b < decode_ns_.size(); ++b)
    if (decode_ns_[b] > 0) return decode_ns_[b];
  return 0;
}

void prefill_pace::step_done(int decode_rows, int prompt_rows, std::int64_t took_ns) {
  const auto took = static_cast<double>(took_ns);
  if (took <= 0) return;
  if (prompt_rows <= 0) {
    auto& average = decode_ns_[bucket_of(decode_rows)];
    average = average == 0 ? took : average + settle * (took - average);
    return;
  }
  // Before any step that only decoded, all rows of a step count alike.
  const double usual = decode_rows > 0 ? usual_ns(decode_rows) : 0;
  const int rows = usual > 0 ? prompt_rows : prompt_rows + decode_rows;
  const double row = std::max(took - usual, 0.0) / rows;
  // Dearer rows count at once, cheaper ones by and by: a pause is worse than a slower prompt.
  row_ns_ = row > row_ns_ ? row : row_ns_ + trust * (row - row_ns_);
}

int prefill_pace::rows_allowed(int decode_rows) const {
  if (row_ns_ == 0) return rows_max_;  // nothing measured yet
  const double usual = usual_ns(decode_rows);
  const double extra = std::max(extra_share * usual, extra_ns_min);
  return std::clamp(static_cast<int>(std::min(extra / row_ns_, 1e6)), 1, rows_max_);
}

}  // namespace tandem::serve
