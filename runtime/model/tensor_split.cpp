#include "runtime/model/tensor_split.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

namespace tandem::model {
namespace {

// Two panels of a packed matrix, which has an even number of them.
constexpr std::int64_t outputs_of_unit = 32;

// Part `rank` of `ranks` nearly equal pieces of [0, count), the larger ones first.
output_range piece_of(std::int64_t count, tensor_rank at) {
  const auto start = [&](std::int64_t rank) { return (count * rank + at.ranks - 1) / at.ranks; };
  return {start(at.rank), start(at.rank + 1) - start(at.rank)};
}

output_range outputs_of(std::int64_t count, tensor_rank at) {
  const auto units = piece_of((count + outputs_of_unit - 1) / outputs_of_unit, at);
  const auto first = std::min(count, units.first * outputs_of_unit);
  return {first, std::min(count, (units.first + units.count) * outputs_of_unit) - first};
}

struct head_ranges {
  output_range query;
  output_range key;
};

std::optional<head_ranges> heads_of(const model_config& c, tensor_rank at) {
  const int queries_each = c.query_heads / c.key_heads;
  if (c.key_heads >= at.ranks) {
    const auto keys = piece_of(c.key_heads, at);
    return head_ranges{{keys.first * queries_each, keys.count * queries_each}, keys};
  }
  if (at.ranks % c.key_heads != 0) return {};
  const int sharing = at.ranks / c.key_heads;
  if (queries_each % sharing != 0) return {};
  const int queries = queries_each / sharing;
  return head_ranges{{std::int64_t{at.rank} * queries, queries}, {at.rank / sharing, 1}};
}

error cannot_divide_heads(const model_config& c, int ranks) {
  std::vector<int> possible;
  for (int n = 1; n <= c.query_heads; ++n)
    if (heads_of(c, {0, n})) possible.push_back(n);
  return {errc::bad_request,
          fmt::format("{} query and {} key heads cannot be split over {} devices; over {} they can",
                      c.query_heads, c.key_heads, ranks, fmt::join(possible, ", ")),
          "model.tensor_parallel"};
}

}  // namespace

result<tensor_split> tensor_split::make(const model_config& config, tensor_rank place) {
  ensure(place.rank >= 0 && place.rank < place.ranks, "a rank of the ranks there are");
  if (place.ranks > 1 && config.experts > 0)
    return error{errc::unsupported,
                 fmt::format("a mixture of {} experts is not split over {} devices: give "
                             "model.tensor_parallel 1",
                             config.experts, place.ranks),
                 "model.tensor_parallel"};
  if (place.ranks > 1 && config.wide_norms)
    return error{errc::unsupported,
                 fmt::format("the norms over all heads of {} are not split over {} devices: give "
                             "model.tensor_parallel 1",
                             config.family, place.ranks),
                 "model.tensor_parallel"};
  tensor_split split{place, {}};
  for (int rank = 0; rank < place.ranks; ++rank) {
    const tensor_rank at{rank, place.ranks};
    const auto heads = heads_of(config, at);
    if (!heads) return cannot_divide_heads(config, place.ranks);
    split.parts.push_back({heads->query, heads->key, outputs_of(config.model_size, at),
                           outputs_of(config.hidden_size, at),
                           outputs_of(config.vocabulary_size, at)});
  }
  return split;
}

}  // namespace tandem::model
