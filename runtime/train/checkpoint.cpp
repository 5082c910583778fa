// Writing: one folder, made durable, then those that are old removed. See checkpoint_files.cpp for
// reading.
#include "runtime/train/checkpoint.hpp"

#include "runtime/crc32c.hpp"
#include "runtime/durable_folder.hpp"
#include "runtime/train/checkpoint_record.hpp"

#include <fmt/format.h>

#include <algorithm>
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
  result<void> write_zeros(std::size_t floats) {
    const std::vector<float> zeros(std::min(floats, block_bytes / sizeof(float)));
    for (; floats > 0; floats -= std::min(floats, zeros.size()))
      if (auto written = write(std::span(zeros).first(std::min(floats, zeros.size()))); !written)
        return written;
    return {};
  }
  std::size_t floats() const { return record_.bytes / sizeof(float); }
  result<file_record> finish() {
    if (auto finished = file_.finish(); !finished) return finished.error();
    return std::move(record_);
  }

 private:
  durable_file file_;
  file_record record_;
};

using moments = std::span<const float> state_view::*;

// One file of all shards, each at its place.
result<file_record> write_moments(const durable_folder& folder, std::string_view name,
                                  const std::vector<state_view>& shards, moments which,
                                  std::size_t floats) {
  auto made = folder.file(name);
  if (!made) return made.error();
  checked_file file(std::move(*made), name);
  for (const state_view& shard : shards) {
    if (auto written = file.write_zeros(shard.shard_begin - file.floats()); !written)
      return written.error();
    if (auto written = file.write(shard.*which); !written) return written.error();
  }
  if (auto written = file.write_zeros(floats - file.floats()); !written) return written.error();
  return file.finish();
}

// Each shard from its own home: other devices may be behind there. What is nobody's shard, from the
// first.
result<file_record> write_parameters(const durable_folder& folder,
                                     const std::vector<state_view>& shards) {
  auto made = folder.file(parameters_name);
  if (!made) return made.error();
  checked_file file(std::move(*made), parameters_name);
  const auto& whole = shards.front().parameters;
  for (const state_view& shard : shards) {
    const auto gap = whole.subspan(file.floats(), shard.shard_begin - file.floats());
    if (auto written = file.write(gap); !written) return written.error();
    const auto own =
        shard.parameters.subspan(shard.shard_begin, shard.shard_end - shard.shard_begin);
    if (auto written = file.write(own); !written) return written.error();
  }
  if (auto written = file.write(whole.subspan(file.floats())); !written) return written.error();
  return file.finish();
}

result<void> write_files(const durable_folder& folder, checkpoint_record& record,
                         const std::vector<state_view>& shards) {
  const auto parameters = shards.front().parameters;
  auto written = write_parameters(folder, shards);
  if (!written) return written.error();
  record.files.push_back(std::move(*written));
  for (const auto& [name, which] : {std::pair{first_moments_name, &state_view::first_moments},
                                    std::pair{second_moments_name, &state_view::second_moments}}) {
    written = write_moments(folder, name, shards, which, parameters.size());
    if (!written) return written.error();
    record.files.push_back(std::move(*written));
  }
  return folder.write(record_name, encode(record));
}

// Views with the moments cut to the own shard, in the order in which the shards lie.
std::vector<state_view> shards_of(const std::vector<std::shared_ptr<trainer_memory>>& group) {
  std::vector<state_view> shards;
  for (const auto& member : group) {
    state_view view = member->view();
    const std::size_t floats = group.front()->view().parameters.size();
    ensure(view.shard_begin <= view.shard_end && view.shard_end <= floats,
           "a shard beyond the parameters");
    for (const moments which : {&state_view::first_moments, &state_view::second_moments}) {
      auto& span = view.*which;
      if (span.size() == floats)
        span = span.subspan(view.shard_begin, view.shard_end - view.shard_begin);
      ensure(span.size() == view.shard_end - view.shard_begin, "moments that are not a shard's");
    }
    shards.push_back(view);
  }
  std::sort(shards.begin(), shards.end(), [](const state_view& one, const state_view& other) {
    return one.shard_begin < other.shard_begin;
  });
  for (std::size_t i = 1; i < shards.size(); ++i)
    ensure(shards[i - 1].shard_end <= shards[i].shard_begin, "shards that overlap");
  return shards;
}

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

result<fs::path> write_checkpoint(const fs::path& folder, const checkpoint_facts& facts,
                                  const std::vector<std::shared_ptr<trainer_memory>>& group,
                                  int kept, const std::function<bool(std::int64_t)>& keep) {
  ensure(!group.empty() && facts.step >= 0, "a checkpoint of nothing");
  const auto shards = shards_of(group);
  checkpoint_record record{facts, {}};
  record.facts.layout = group.front()->layout();

  remove_leftovers(folder);
  const fs::path path = checkpoint_path(folder, facts.step);
  constexpr std::uint64_t record_bytes = std::uint64_t{1} << 20;  // and what folders take
  const std::uint64_t needed = 3 * shards.front().parameters.size_bytes() + record_bytes;
  const auto advice = [&](const error& why) {
    return error{why.code,
                 fmt::format("the checkpoint of step {} ({} bytes) was not written: {}; free some "
                             "space or keep fewer checkpoints (checkpoints_kept)",
                             facts.step, needed, why.detail),
                 why.param};
  };
  auto begun = durable_folder::begin(path, needed);
  if (!begun) return advice(begun.error());
  if (auto written = write_files(*begun, record, shards); !written) return advice(written.error());
  if (auto committed = begun->commit(); !committed) return advice(committed.error());
  prune(folder, facts.step, kept, keep);
  return path;
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
