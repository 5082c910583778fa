#include "runtime/train/group_layout.hpp"

#include "kernels/ensure.hpp"
#include "runtime/train/device_memory.hpp"

#include <algorithm>
#include <map>
#include <numeric>

namespace tandem::train {

namespace {

memory_range of_shard(const group_layout& layout, int rank, arena_kind arena, int shard_of) {
  const auto& part = layout.shards[static_cast<std::size_t>(shard_of)];
  return {rank, arena, part.begin, part.floats()};
}

// Rows come after their ids, which say how many there are.
void add_embedded(const group_layout& layout, int rank, std::vector<memory_range>& list) {
  if (layout.embedded_rows == 0) return;
  list.push_back({rank, arena_kind::embedded_ids, 0, layout.embedded_rows});
  list.push_back(
      {rank, arena_kind::embedded_rows, 0, layout.embedded_rows * layout.embedded_columns});
}

void drop_empty(std::vector<memory_range>& list) {
  std::erase_if(list, [](const memory_range& one) { return one.count == 0; });
}

}  // namespace

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

std::size_t element_bytes(arena_kind arena) {
  if (arena == arena_kind::progress) return sizeof(order_progress);
  return arena == arena_kind::embedded_ids ? sizeof(token_id) : sizeof(float);
}

std::vector<memory_range> needs(const group_layout& layout, order_kind kind, int home, int by,
                                const std::vector<bool>& shares) {
  const bool foreign = !shares[static_cast<std::size_t>(home)];
  std::vector<memory_range> list;
  const auto add = [&](int rank, arena_kind arena) {
    list.push_back(of_shard(layout, rank, arena, kind == order_kind::gather ? rank : home));
  };
  switch (kind) {
    case order_kind::accumulate:
    case order_kind::evaluate:
    case order_kind::publish:
      break;
    case order_kind::reduce:
      for (int rank = 0; rank < layout.ranks(); ++rank) {
        if (shares[static_cast<std::size_t>(rank)]) continue;
        add(rank, arena_kind::gradients);
        if (home == layout.embedding_rank) add_embedded(layout, rank, list);
      }
      if (foreign) {
        add(home, arena_kind::summed);
        list.push_back({home, arena_kind::progress, 0, 1});
      }
      break;
    case order_kind::norm:
      if (foreign) add(home, arena_kind::summed);
      break;
    case order_kind::update:
      if (!foreign) break;
      for (const auto arena : {arena_kind::summed, arena_kind::parameters,
                               arena_kind::first_moments, arena_kind::second_moments})
        add(home, arena);
      list.push_back({home, arena_kind::progress, 0, 1});
      break;
    case order_kind::gather:
      ensure(home == by, "whoever gathers does so for itself");
      for (int rank = 0; rank < layout.ranks(); ++rank)
        if (!shares[static_cast<std::size_t>(rank)]) add(rank, arena_kind::parameters);
      break;
  }
  drop_empty(list);
  return list;
}

std::vector<memory_range> yields(const group_layout& layout, order_kind kind, int home, int by,
                                 const std::vector<bool>& shares) {
  std::vector<memory_range> list;
  if (home == by || shares[static_cast<std::size_t>(home)]) return list;
  switch (kind) {
    case order_kind::accumulate:
      list.push_back({home, arena_kind::gradients, 0, layout.floats()});
      add_embedded(layout, home, list);
      break;
    case order_kind::reduce:
      list.push_back(of_shard(layout, home, arena_kind::summed, home));
      break;
    case order_kind::update:
      for (const auto arena :
           {arena_kind::parameters, arena_kind::first_moments, arena_kind::second_moments})
        list.push_back(of_shard(layout, home, arena, home));
      break;
    case order_kind::evaluate:
    case order_kind::norm:
    case order_kind::gather:
    case order_kind::publish:
      break;
  }
  drop_empty(list);
  return list;
}

std::size_t guest_floats(const group_layout& layout, int rank) {
  if (layout.ranks() < 2) return 0;
  const auto embedded = layout.embedded_rows * layout.embedded_columns;
  std::size_t most = layout.floats() + embedded;  // accumulate, for somebody else
  std::vector<bool> shares(layout.shards.size(), false);
  shares[static_cast<std::size_t>(rank)] = true;
  for (int home = 0; home < layout.ranks(); ++home)
    for (const auto kind : {order_kind::reduce, order_kind::update}) {
      std::size_t floats = 0;
      for (const auto& range : needs(layout, kind, home, rank, shares))
        if (range.arena != arena_kind::progress && range.arena != arena_kind::embedded_ids)
          floats += range.count;
      most = std::max(most, floats);
    }
  return most;
}

std::vector<int> buddies_of(const std::vector<std::string>& hosts) {
  const auto ranks = static_cast<int>(hosts.size());
  if (ranks < 2) return std::vector<int>(hosts.size(), -1);
  std::vector<int> by_host(hosts.size());
  std::iota(by_host.begin(), by_host.end(), 0);
  std::stable_sort(by_host.begin(), by_host.end(), [&](int one, int other) {
    return hosts[static_cast<std::size_t>(one)] < hosts[static_cast<std::size_t>(other)];
  });
  std::map<std::string, int> sizes;
  int largest = 0;
  for (const auto& host : hosts) largest = std::max(largest, ++sizes[host]);
  // As far on as the largest host is wide: past the end of one's own.
  const int far = largest < ranks ? largest : 1;
  std::vector<int> buddies(hosts.size(), -1);
  for (int at = 0; at < ranks; ++at)
    buddies[static_cast<std::size_t>(by_host[static_cast<std::size_t>(at)])] =
        by_host[static_cast<std::size_t>((at + far) % ranks)];
  return buddies;
}

std::vector<memory_range> copied_ranges(const group_layout& layout, int rank) {
  std::vector<memory_range> list;
  for (const auto arena :
       {arena_kind::parameters, arena_kind::first_moments, arena_kind::second_moments})
    list.push_back(of_shard(layout, rank, arena, rank));
  drop_empty(list);
  return list;
}

bool has_copy(arena_kind arena) {
  return arena == arena_kind::parameters || arena == arena_kind::first_moments ||
         arena == arena_kind::second_moments;
}

memory_range kept_at(memory_range what, int buddy) {
  ensure(has_copy(what.arena), "what a copy is made of");
  what.rank = buddy;
  what.arena = what.arena == arena_kind::parameters      ? arena_kind::kept_parameters
               : what.arena == arena_kind::first_moments ? arena_kind::kept_first_moments
                                                         : arena_kind::kept_second_moments;
  return what;
}

std::vector<memory_range> cut(const std::vector<memory_range>& ranges, std::size_t bytes_max) {
  std::vector<memory_range> pieces;
  for (const auto& range : ranges) {
    const bool whole = range.arena == arena_kind::embedded_ids;
    const auto most =
        whole ? range.count : std::max<std::size_t>(1, bytes_max / element_bytes(range.arena));
    for (std::size_t at = 0; at < range.count; at += most)
      pieces.push_back(
          {range.rank, range.arena, range.first + at, std::min(most, range.count - at)});
  }
  return pieces;
}

}  // namespace tandem::train
