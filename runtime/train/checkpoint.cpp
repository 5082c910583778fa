// Writing: one folder, made durable, then those that are old removed. See checkpoint_files.cpp for
// reading.
#include "runtime/train/checkpoint_writer.hpp"

#include "runtime/crc32c.hpp"
#include "runtime/durable_folder.hpp"
#include "runtime/train/checkpoint_record.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <system_error>
#include <utility>

namespace tandem::train {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "numbers are written as they lie");

constexpr std::string_view step_prefix = "step-";
// Checksummed and written while it is in the cache.
constexpr std::size_t block_bytes = std::size_t{1} << 20;

// The step a folder's name says, or nothing.
std::optional<std::int64_t> step_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  if (!name.starts_with(step_prefix)) return std::nullopt;
  std::int64_t step = 0;
  const char* const end = name.data() + name.size();
  const auto read = std::from_chars(name.data() + step_prefix.size(), end, step);
  if (read.ec != std::errc() || read.ptr != end || step < 0) return std::nullopt;
  if (checkpoint_path({}, step).string() != name) return std::nullopt;
  return step;
}

// Steps that have a folder, newest first. An unreadable folder has none.
std::vector<std::int64_t> steps_in(const fs::path& folder) {
  std::vector<std::int64_t> steps;
  std::error_code code;
  for (fs::directory_iterator at(folder, code), end; !code && at != end; at.increment(code))
    if (const auto step = step_of(at->path())) steps.push_back(*step);
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

// What killed writers left. Best effort: what cannot be removed is in nobody's way.
void remove_leftovers(const fs::path& folder) {
  std::vector<fs::path> left;
  std::error_code code;
  for (fs::directory_iterator at(folder, code), end; !code && at != end; at.increment(code)) {
    const std::string name = at->path().filename().string();
    if (name.starts_with(step_prefix) && name.ends_with(part_suffix)) left.push_back(at->path());
  }
  for (const auto& path : left) fs::remove_all(path, code);
}

// Writes numbers to a file, counting pieces and their checksums as they go by.
class checked_file {
 public:
  checked_file(durable_file file, std::string_view name) : file_(std::move(file)) {
    record_.name = name;
  }
  result<void> write(std::span<const float> numbers) {
    auto bytes = std::as_bytes(numbers);
    while (!bytes.empty()) {
      const std::size_t to_piece_end = piece_bytes - record_.bytes % piece_bytes;
      const auto block = bytes.first(std::min({bytes.size(), block_bytes, to_piece_end}));
      if (record_.bytes % piece_bytes == 0) record_.crc32c.push_back(0);
      record_.crc32c.back() = crc32c(block, record_.crc32c.back());
      if (auto written = file_.write(block); !written) return written;
      record_.bytes += block.size();
      bytes = bytes.subspan(block.size());
    }
    return {};
  }
  result<file_record> finish() {
    if (auto finished = file_.finish(); !finished) return finished.error();
    return std::move(record_);
  }

 private:
  durable_file file_;
  file_record record_;
};

struct named_arena {
  std::string_view file;
  arena_kind arena;
};
constexpr std::array files{named_arena{parameters_name, arena_kind::parameters},
                           named_arena{first_moments_name, arena_kind::first_moments},
                           named_arena{second_moments_name, arena_kind::second_moments}};

// Counts from the step just written downwards: folders of later steps are of a run that was given
// up, and a broken one among them must not push a whole one out.
void prune(const fs::path& folder, std::int64_t written, int kept,
           const std::function<bool(std::int64_t)>& keep) {
  int seen = 0;
  for (const std::int64_t step : steps_in(folder)) {
    if (step > written || seen++ < std::max(kept, 1) || (keep && keep(step))) continue;
    // One more checkpoint than wanted harms nobody; the next write tries again.
    static_cast<void>(remove_durably(checkpoint_path(folder, step)));
  }
}

}  // namespace

fs::path checkpoint_path(const fs::path& folder, std::int64_t step) {
  return folder / fmt::format("{}{:08}", step_prefix, step);
}

struct checkpoint_writer::state {
  fs::path folder;
  checkpoint_record record;
  std::vector<memory_range> parts;  // of one arena, in order
  std::uint64_t needed = 0;
  std::size_t part = 0;  // of `file`
  std::optional<durable_folder> draft;
  std::optional<checked_file> file;  // the one being written: of files[record.files.size()]

  error advice(const error& why) const {
    return {why.code,
            fmt::format("the checkpoint of step {} ({} bytes) was not written: {}; free some "
                        "space or keep fewer checkpoints (checkpoints_kept)",
                        record.facts.step, needed, why.detail),
            why.param};
  }
  result<void> open_file();
  result<void> write(std::span<const float> numbers);
};

checkpoint_writer::checkpoint_writer(std::unique_ptr<state> s) : state_(std::move(s)) {}
checkpoint_writer::~checkpoint_writer() = default;

result<std::unique_ptr<checkpoint_writer>> checkpoint_writer::begin(
    const fs::path& folder, checkpoint_facts facts, const std::vector<memory_range>& shards,
    std::size_t bytes_at_once) {
  ensure(facts.step >= 0 && !shards.empty(), "a checkpoint of nothing");
  auto s = std::make_unique<state>();
  s->folder = folder;
  s->record.facts = std::move(facts);
  auto sorted = shards;
  std::sort(sorted.begin(), sorted.end(), [](const memory_range& one, const memory_range& other) {
    return std::pair(one.first, one.count) < std::pair(other.first, other.count);
  });
  std::size_t floats = 0;
  for (const auto& shard : sorted) {
    ensure(shard.first == floats, "shards that tile the parameters");
    floats += shard.count;
  }
  s->parts = cut(sorted, bytes_at_once);
  constexpr std::uint64_t record_bytes = std::uint64_t{1} << 20;  // and what folders take
  s->needed = files.size() * floats * sizeof(float) + record_bytes;
  remove_leftovers(folder);
  auto begun = durable_folder::begin(checkpoint_path(folder, s->record.facts.step), s->needed);
  if (!begun) return s->advice(begun.error());
  s->draft.emplace(std::move(*begun));
  if (auto opened = s->open_file(); !opened) return s->advice(opened.error());
  return std::unique_ptr<checkpoint_writer>(new checkpoint_writer(std::move(s)));
}

result<void> checkpoint_writer::state::open_file() {
  const auto name = files.at(record.files.size()).file;
  auto made = draft->file(name);
  if (!made) return made.error();
  file.emplace(std::move(*made), name);
  part = 0;
  return {};
}

std::optional<memory_range> checkpoint_writer::wants() const {
  const auto& s = *state_;
  if (s.record.files.size() == files.size()) return std::nullopt;
  auto what = s.parts[s.part];
  what.arena = files.at(s.record.files.size()).arena;
  return what;
}

result<void> checkpoint_writer::write(std::span<const float> numbers) {
  ensure(wants() && wants()->count == numbers.size(), "what the writer wants");
  auto& s = *state_;
  if (auto written = s.write(numbers); !written) return s.advice(written.error());
  return {};
}

result<void> checkpoint_writer::state::write(std::span<const float> numbers) {
  if (auto written = file->write(numbers); !written) return written;
  if (++part < parts.size()) return {};
  auto finished = file->finish();
  if (!finished) return finished.error();
  record.files.push_back(std::move(*finished));
  file.reset();
  if (record.files.size() == files.size()) return {};
  return open_file();
}

result<fs::path> checkpoint_writer::finish(int kept, const std::function<bool(std::int64_t)>& keep,
                                           const std::function<result<void>()>& may_commit) {
  ensure(!wants(), "a whole checkpoint");
  auto& s = *state_;
  const auto step = s.record.facts.step;
  if (auto written = s.draft->write(record_name, encode(s.record)); !written)
    return s.advice(written.error());
  if (may_commit)
    if (auto may = may_commit(); !may) return may.error();
  if (auto committed = s.draft->commit(); !committed) return s.advice(committed.error());
  prune(s.folder, step, kept, keep);
  return checkpoint_path(s.folder, step);
}

std::span<const float> saved_floats(const trainer_memory& memory, const memory_range& what,
                                    std::vector<float>& room) {
  const auto view = memory.view();
  if (view.parameters.empty()) {  // in several devices' memory
    const auto read = memory.read(what, [&](std::size_t bytes) {
      room.resize(bytes / sizeof(float));
      return reinterpret_cast<std::byte*>(room.data());
    });
    ensure(read.has_value(), "what the memory's own view names");
    return room;
  }
  if (what.arena == arena_kind::parameters)
    return memory.on_host(view.parameters.subspan(what.first, what.count), room);
  const auto moments =
      what.arena == arena_kind::first_moments ? view.first_moments : view.second_moments;
  const bool whole = moments.size() == view.parameters.size();
  return memory.on_host(moments.subspan(what.first - (whole ? 0 : view.shard_begin), what.count),
                        room);
}

result<fs::path> write_checkpoint(const fs::path& folder, const checkpoint_facts& facts,
                                  const std::vector<std::shared_ptr<trainer_memory>>& group,
                                  int kept, const std::function<bool(std::int64_t)>& keep,
                                  const std::function<result<void>()>& may_commit) {
  ensure(!group.empty(), "a checkpoint of nothing");
  std::vector<memory_range> shards;
  for (std::size_t rank = 0; rank < group.size(); ++rank) {
    const auto view = group[rank]->view();
    shards.push_back({static_cast<int>(rank), arena_kind::parameters, view.shard_begin,
                      view.shard_end - view.shard_begin});
  }
  auto whole = facts;
  whole.layout = group.front()->layout();
  auto writer = checkpoint_writer::begin(folder, std::move(whole), shards);
  if (!writer) return writer.error();
  std::vector<float> room;
  while (const auto what = (*writer)->wants()) {
    const auto& memory = *group[static_cast<std::size_t>(what->rank)];
    if (auto written = (*writer)->write(saved_floats(memory, *what, room)); !written)
      return written.error();
  }
  return (*writer)->finish(kept, keep, may_commit);
}

result<fs::path> write_checkpoint(const fs::path& folder, const checkpoint_facts& facts,
                                  const std::vector<std::shared_ptr<trainer_memory>>& group,
                                  int kept, const std::function<bool(std::int64_t)>& keep) {
  return write_checkpoint(folder, facts, group, kept, keep, {});
}

newest_checkpoint find_checkpoint(const fs::path& folder) {
  newest_checkpoint found;
  for (const std::int64_t step : steps_in(folder)) {
    const fs::path path = checkpoint_path(folder, step);
    const auto whole = check_checkpoint(path);
    if (whole) {
      found.path = path;
      return found;
    }
    found.broken.push_back(whole.error().detail);
  }
  return found;
}

}  // namespace tandem::train
