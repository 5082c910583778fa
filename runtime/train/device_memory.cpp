#include "runtime/train/device_memory.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace tandem::train {

namespace {

error not_here(const memory_range& what, std::string_view why) {
  return {errc::conflict,
          fmt::format("elements {} to {} of arena {} of rank {}: {}", what.first,
                      what.first + what.count, static_cast<int>(what.arena), what.rank, why),
          {}};
}

}  // namespace

void device_memory::forget() {
  parameters = {};
  gradients = summed = first_moments = second_moments = shard_parameters = {};
  embedded_rows = {};
  embedded_ids.clear();
  progress = {};
}

result<void> device_memory::take_guests() {
  auto arena = memory::arena::reserve(*book, memory::owner::gradients,
                                      guest_floats(group, rank) * sizeof(float),
                                      "work for devices that share no memory");
  if (!arena) return arena.error();
  guests = std::move(*arena);
  for (int at = 0; at < devices; ++at) {
    mirrors.push_back(at == rank ? nullptr : std::make_shared<device_memory>());
    if (at == rank) continue;
    auto& mirror = *mirrors.back();
    mirror.group = group;
    mirror.devices = devices;
    mirror.rank = at;
    mirror.own = group.shards[static_cast<std::size_t>(at)];
    mirror.embedded_ids.reserve(group.embedded_rows);
  }
  return {};
}

result<void> device_memory::take_copy(int of_rank) {
  const auto& part = group.shards[static_cast<std::size_t>(of_rank)];
  for (auto* const to : {&kept_parameters, &kept_first_moments, &kept_second_moments}) {
    auto arena = memory::arena::reserve(*book, memory::owner::optimizer,
                                        part.floats() * sizeof(float), "a copy of another's shard");
    if (!arena) return arena.error();
    *to = {part.begin, floats_of(*arena)};
    held.push_back(std::move(*arena));
  }
  return {};
}

result<void> device_memory::expect(order_kind kind, int home) {
  if (mirrors.empty())
    return error{errc::conflict, "a device that was opened to share memory with its group", {}};
  if (home < 0 || home >= devices)
    return error{errc::bad_request, fmt::format("home {} of a group of {}", home, devices), {}};
  for (auto& mirror : mirrors)
    if (mirror) mirror->forget();
  std::vector<bool> shares(mirrors.size(), false);
  shares[static_cast<std::size_t>(rank)] = true;
  auto ranges = needs(group, kind, home, rank, shares);
  const auto made = yields(group, kind, home, rank, shares);
  if (ranges.empty()) ranges = made;  // what an order changes it was given, or makes anew
  std::size_t next = 0;
  const auto all = floats_of(guests);
  for (const auto& range : ranges) {
    auto& mirror = *mirrors[static_cast<std::size_t>(range.rank)];
    if (range.arena == arena_kind::progress || range.arena == arena_kind::embedded_ids) continue;
    if (kind == order_kind::gather) {  // straight to where it belongs
      mirror.shard_parameters = {range.first, parameters.subspan(range.first, range.count)};
      continue;
    }
    const float_range room{range.first, all.subspan(next, range.count)};
    next += range.count;
    switch (range.arena) {
      case arena_kind::parameters:
        mirror.shard_parameters = room;
        break;
      case arena_kind::gradients:
        mirror.gradients = room;
        break;
      case arena_kind::summed:
        mirror.summed = room;
        break;
      case arena_kind::first_moments:
        mirror.first_moments = room;
        break;
      case arena_kind::second_moments:
        mirror.second_moments = room;
        break;
      case arena_kind::embedded_rows:
        mirror.embedded_rows = room.floats;
        break;
      case arena_kind::embedded_ids:
      case arena_kind::progress:
      case arena_kind::kept_parameters:
      case arena_kind::kept_first_moments:
      case arena_kind::kept_second_moments:
        break;
    }
  }
  return {};
}

const device_memory* device_memory::member(int at) const {
  if (at == rank) return this;
  if (at < 0 || at >= std::ssize(mirrors)) return nullptr;
  return mirrors[static_cast<std::size_t>(at)].get();
}

float_range device_memory::range_of(arena_kind arena) const {
  switch (arena) {
    case arena_kind::parameters:
      return shard_parameters;
    case arena_kind::gradients:
      return gradients;
    case arena_kind::summed:
      return summed;
    case arena_kind::first_moments:
      return first_moments;
    case arena_kind::second_moments:
      return second_moments;
    case arena_kind::embedded_rows:
      return {0, embedded_rows.first(embedded_ids.size() * group.embedded_columns)};
    case arena_kind::kept_parameters:
      return kept_parameters;
    case arena_kind::kept_first_moments:
      return kept_first_moments;
    case arena_kind::kept_second_moments:
      return kept_second_moments;
    case arena_kind::embedded_ids:
    case arena_kind::progress:
      break;
  }
  return {};
}

std::span<const float> device_memory::on_host(std::span<const float> numbers,
                                              std::vector<float>& room) const {
  auto& source = book->source();
  if (source.host()) return numbers;
  room.resize(numbers.size());
  source.read(std::as_bytes(numbers), reinterpret_cast<std::byte*>(room.data()));
  return room;
}

result<void> device_memory::read(const memory_range& what, take_room room) const {
  const auto* const from = member(what.rank);
  if (from == nullptr) return not_here(what, "no such member here");
  const auto of_host = [&](std::span<const std::byte> bytes) {
    std::copy(bytes.begin(), bytes.end(), room(bytes.size()));
    return result<void>();
  };
  if (what.arena == arena_kind::progress)
    return of_host(std::as_bytes(std::span(&from->progress, std::size_t{1})));
  if (what.arena == arena_kind::embedded_ids)
    return of_host(std::as_bytes(std::span(from->embedded_ids)));
  const auto range = from->range_of(what.arena);
  auto first = what.first;
  auto count = what.count;
  if (what.arena == arena_kind::embedded_rows) {
    first = std::min(first, range.floats.size());
    count = std::min(count, range.floats.size() - first);
  }
  if (!range.holds(first, count))
    return not_here(
        what, fmt::format("{} to {} lie here", range.first, range.first + range.floats.size()));
  const auto floats = range.part(first, count);
  book->source().read(std::as_bytes(floats), room(floats.size_bytes()));
  return {};
}

result<void> device_memory::write(const memory_range& what, std::span<const std::byte> bytes) {
  auto* const to = const_cast<device_memory*>(member(what.rank));
  if (to == nullptr) return not_here(what, "no such member here");
  const auto unit = element_bytes(what.arena);
  const bool grows =
      what.arena == arena_kind::embedded_ids || what.arena == arena_kind::embedded_rows;
  const auto count = bytes.size() / unit;
  if (bytes.size() % unit != 0 || count > what.count || (!grows && count < what.count))
    return not_here(what, fmt::format("{} bytes came", bytes.size()));
  if (what.arena == arena_kind::progress) {
    std::memcpy(&to->progress, bytes.data(), sizeof(order_progress));
    return {};
  }
  if (what.arena == arena_kind::embedded_ids) {
    if (count > group.embedded_rows)
      return not_here(what,
                      fmt::format("{} are more than the job's {}", count, group.embedded_rows));
    if (to->embedded_rows.size() < count * group.embedded_columns)
      return not_here(what, "nothing was expected of its embedding");
    to->embedded_ids.resize(count);
    if (count > 0) std::memcpy(to->embedded_ids.data(), bytes.data(), bytes.size());
    return {};
  }
  const auto range = to->range_of(what.arena);
  const auto first = grows && count == 0 ? range.first : what.first;
  if (!range.holds(first, count))
    return not_here(
        what, fmt::format("{} to {} lie here", range.first, range.first + range.floats.size()));
  if (count > 0)
    book->source().write(bytes, std::as_writable_bytes(range.part(first, count)).data());
  return {};
}

}  // namespace tandem::train
