#include "runtime/train/device_memory.hpp"

namespace tandem::train {

std::vector<shard> shards_of(const std::vector<parameter>& layout, int count) {
  const auto total = layout.empty() ? 0 : layout.back().first_float + layout.back().floats;
  const auto shards = static_cast<std::size_t>(count);
  std::vector<shard> list;
  std::size_t t = 0;
  for (std::size_t s = 0; s < shards; ++s) {
    shard next{.begin = list.empty() ? 0 : list.back().end, .first_tensor = t};
    next.end = next.begin;
    // A tensor goes where its middle falls.
    for (; t < layout.size(); ++t) {
      const auto middle = layout[t].first_float + layout[t].floats / 2;
      if (s + 1 < shards && middle >= total * (s + 1) / shards) break;
      next.end = layout[t].first_float + layout[t].floats;
    }
    next.last_tensor = t;
    list.push_back(next);
  }
  return list;
}

}  // namespace tandem::train
