// A checkpoint on disk: everything that the next step depends on. A folder that is there is whole:
// written under another name beside it, every file and the folder synced, then renamed.
//
//   step-00000012/
//     checkpoint.json        version, job, step, settings, layout (names, floats), base identity,
//                            metrics, sizes and CRC-32C of the files below, and its own
//     parameters.f32         the parameter arena in layout order, little-endian float32
//     first_moments.f32  second_moments.f32
//
// Data cursor and random state are the step number and the settings (step_planner is a function
// of them). Reading checks every size, name and checksum before use; a folder that fails is told
// apart from none at all, and the one before it is used.
#pragma once

#include "runtime/pause_point.hpp"
#include "runtime/result.hpp"
#include "runtime/text/value.hpp"
#include "runtime/train/job_settings.hpp"
#include "runtime/train/trainer.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace tandem::train {

struct checkpoint_facts {
  std::string job;
  std::string model_path;  // the base
  std::string base_name;   // what clients call it
  std::int64_t step = 0;
  std::int64_t step_count = 0;
  std::int64_t trained_tokens = 0;
  job_settings settings;
  text::value metrics;            // of that step, for people
  std::vector<parameter> layout;  // filled in by reading; a writer takes the group's
};

// Writes one step and renames it into place, then removes all but the newest `kept`, and never one
// that `keep` (may be empty) wants. `group` in rank order: parameters from the first, moments by
// shard. A full disk or a refused write leaves nothing behind and says how much was needed and how
// much is free (errc::io).
result<std::filesystem::path> write_checkpoint(
    const std::filesystem::path& folder, const checkpoint_facts& facts,
    const std::vector<std::shared_ptr<trainer_memory>>& group, int kept,
    const std::function<bool(std::int64_t step)>& keep = {});

// The newest whole checkpoint under `folder`; nothing when there is none. Broken ones are named in
// `broken`.
struct newest_checkpoint {
  std::optional<std::filesystem::path> path;
  std::vector<std::string> broken;
};
newest_checkpoint find_checkpoint(const std::filesystem::path& folder);
// Whether every size and checksum of one checkpoint is right; says what is not.
result<void> check_checkpoint(const std::filesystem::path& checkpoint);
std::filesystem::path checkpoint_path(const std::filesystem::path& folder, std::int64_t step);

result<checkpoint_facts> read_checkpoint_facts(const std::filesystem::path& checkpoint);
// Fills the spans, whose sizes must be the layout's; m or v may be empty spans (not wanted), or a
// shard's part with `first_float`. `put` writes to memory that is not the host's.
using put_bytes = std::function<void(std::span<const std::byte> from, std::byte* to)>;
result<void> read_parameters(const std::filesystem::path& checkpoint, std::span<float> parameters,
                             const pause_point& pause = no_pause, const put_bytes& put = {});
result<void> read_moments(const std::filesystem::path& checkpoint, std::size_t first_float,
                          std::span<float> first, std::span<float> second,
                          const pause_point& pause = no_pause, const put_bytes& put = {});

// Numbers of one of the three arenas, from first_float on.
result<void> read_arena(const std::filesystem::path& checkpoint, arena_kind arena,
                        std::size_t first_float, std::span<float> numbers);

// SHA-256 of the parameter file, as hexadecimal: "the weights' hash" that tests and `tandem job`
// compare.
result<std::string> parameters_hash(const std::filesystem::path& checkpoint);

}  // namespace tandem::train
