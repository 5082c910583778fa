#include "runtime/train/rank_memory.hpp"

#include "runtime/train/checkpoint.hpp"
#include "runtime/train/resume.hpp"

#include <algorithm>
#include <utility>

namespace tandem::train {
namespace {

constexpr std::size_t floats_at_once = std::size_t{4} << 20;

result<void> check_arena(const memory_range& what) {
  if (what.rank == 0 && has_copy(what.arena)) return {};
  return error{
      errc::unsupported, "ranks that hold a model together show what checkpoints have", {}};
}

}  // namespace

rank_memory::rank_memory(std::vector<std::shared_ptr<trainer_memory>> ranks, rank_layout layout)
    : ranks_(std::move(ranks)), layout_(std::move(layout)) {}

result<void> rank_memory::read(const memory_range& what, take_room room) const {
  if (auto fine = check_arena(what); !fine) return fine;
  const auto bytes = what.count * sizeof(float);
  std::byte* const into = room(bytes);
  std::fill_n(into, bytes, std::byte{0});  // padding
  for (const auto& run : layout_.runs_once(what.first, what.count)) {
    const auto at = into + (run.whole - what.first) * sizeof(float);
    const auto read =
        of(run).read({0, what.arena, run.own, run.floats}, [&](std::size_t) { return at; });
    if (!read) return read.error();
  }
  return {};
}

result<void> rank_memory::write(const memory_range& what, std::span<const std::byte> bytes) {
  if (auto fine = check_arena(what); !fine) return fine;
  ensure(bytes.size() == what.count * sizeof(float), "as many bytes as the range has");
  for (const auto& run : layout_.runs(what.first, what.count)) {
    const auto part =
        bytes.subspan((run.whole - what.first) * sizeof(float), run.floats * sizeof(float));
    if (auto done = of(run).write({0, what.arena, run.own, run.floats}, part); !done) return done;
  }
  return {};
}

result<std::int64_t> resume_ranks(const std::filesystem::path& checkpoint, rank_memory& memory,
                                  const pause_point& pause) {
  const auto facts = read_checkpoint_facts(checkpoint);
  if (!facts) return facts.error();
  if (auto same = check_layout(checkpoint, *facts, memory.layout()); !same) return same.error();
  std::vector<float> room;
  for (const auto arena :
       {arena_kind::parameters, arena_kind::first_moments, arena_kind::second_moments})
    for (std::size_t at = 0; at < memory.view().shard_end; at += floats_at_once) {
      room.resize(std::min(floats_at_once, memory.view().shard_end - at));
      if (auto read = read_arena(checkpoint, arena, at, room); !read) return read.error();
      if (auto put = memory.write({0, arena, at, room.size()}, std::as_bytes(std::span(room)));
          !put)
        return put.error();
      pause();
    }
  return facts->step;
}

}  // namespace tandem::train
