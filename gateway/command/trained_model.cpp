#include "gateway/command/trained_model.hpp"

#include "runtime/nearest_name.hpp"
#include "runtime/train/checkpoint.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <system_error>

namespace tandem::gateway::command {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view step_mark = "ckpt-step-";
constexpr std::string_view job_prefix = "ftjob-";
constexpr std::size_t shown = 8;

struct wanted_model {
  std::string job;
  std::optional<std::int64_t> step;
};

// The job is the last part of a name, or the one before its checkpoint.
wanted_model parse(std::string_view text) {
  wanted_model wanted;
  const std::size_t colon = text.rfind(':');
  const std::string_view last = text.substr(colon == text.npos ? 0 : colon + 1);
  if (last.starts_with(step_mark) && colon != text.npos) {
    std::int64_t step = 0;
    const char* const end = last.data() + last.size();
    const auto read = std::from_chars(last.data() + step_mark.size(), end, step);
    if (read.ec == std::errc() && read.ptr == end) {
      wanted.step = step;
      text = text.substr(0, colon);
    }
  }
  const std::size_t before = text.rfind(':');
  wanted.job = text.substr(before == text.npos ? 0 : before + 1);
  return wanted;
}

std::vector<std::string> jobs_in(const fs::path& folder) {
  std::vector<std::string> jobs;
  std::error_code code;
  for (fs::directory_iterator at(folder, code), end; !code && at != end; at.increment(code))
    if (fs::is_directory(at->path() / "checkpoints", code))
      jobs.push_back(at->path().filename().string());
  std::sort(jobs.begin(), jobs.end());
  return jobs;
}

result<trained_model> newest(const fs::path& checkpoints, std::string_view wanted) {
  auto found = train::find_checkpoint(checkpoints);
  if (found.path) return trained_model{*found.path, std::move(found.broken)};
  return error{
      errc::not_found,
      found.broken.empty()
          ? fmt::format("{} has no checkpoint yet: {} is empty", wanted, checkpoints.string())
          : fmt::format("{} has no whole checkpoint: {}", wanted, fmt::join(found.broken, "; ")),
      {}};
}

result<trained_model> in_folder(const fs::path& folder) {
  std::error_code code;
  if (fs::exists(folder / "checkpoint.json", code)) {
    const fs::path checkpoint =
        folder.has_filename() ? folder : folder.parent_path();  // a trailing slash
    if (auto whole = train::check_checkpoint(checkpoint); !whole) return whole.error();
    return trained_model{checkpoint, {}};
  }
  const fs::path below = folder / "checkpoints";
  return newest(fs::is_directory(below, code) ? below : folder, folder.string());
}

result<trained_model> at_step(const fs::path& checkpoints, std::int64_t step) {
  const fs::path checkpoint = train::checkpoint_path(checkpoints, step);
  std::error_code code;
  if (fs::exists(checkpoint, code)) {
    if (auto whole = train::check_checkpoint(checkpoint); !whole) return whole.error();
    return trained_model{checkpoint, {}};
  }
  std::vector<std::string> kept;
  for (fs::directory_iterator at(checkpoints, code), end; !code && at != end; at.increment(code))
    kept.push_back(at->path().filename().string());
  std::sort(kept.begin(), kept.end());
  return error{errc::not_found,
               fmt::format("step {} is not kept: {} holds {}", step, checkpoints.string(),
                           kept.empty() ? "nothing" : fmt::format("{}", fmt::join(kept, ", "))),
               {}};
}

error no_such_job(std::string_view wanted, const std::string& job, std::vector<std::string> jobs,
                  const fs::path& folder) {
  if (jobs.empty())
    return {errc::not_found,
            fmt::format("no job \"{}\": {} holds none with a checkpoint", wanted, folder.string()),
            {}};
  const auto near = nearest_name(job, jobs);
  const std::size_t more = jobs.size() > shown ? jobs.size() - shown : 0;
  jobs.resize(jobs.size() - more);
  return {
      errc::not_found,
      near ? fmt::format("no job \"{}\" under {}: did you mean {}?", wanted, folder.string(), *near)
           : fmt::format("no job \"{}\" under {}: it holds {}{}", wanted, folder.string(),
                         fmt::join(jobs, ", "),
                         more > 0 ? fmt::format(" and {} more", more) : std::string()),
      {}};
}

}  // namespace

result<trained_model> find_trained(std::string_view wanted, const fs::path& jobs_folder) {
  std::error_code code;
  if (!wanted.empty() && fs::is_directory(fs::path(wanted), code))
    return in_folder(fs::path(wanted));
  const wanted_model model = parse(wanted);
  const auto jobs = jobs_in(jobs_folder);
  const auto fits = [&](const std::string& job) {
    return job == model.job || job == std::string(job_prefix) + model.job;
  };
  const auto job = std::find_if(jobs.begin(), jobs.end(), fits);
  if (job == jobs.end()) return no_such_job(wanted, model.job, jobs, jobs_folder);
  const fs::path checkpoints = jobs_folder / *job / "checkpoints";
  return model.step ? at_step(checkpoints, *model.step) : newest(checkpoints, *job);
}

}  // namespace tandem::gateway::command
