#include "gateway/command/job_table.hpp"

#include "gateway/command/json_view.hpp"
#include "gateway/command/print.hpp"

#include <fmt/format.h>

#include <array>
#include <ctime>
#include <ostream>

namespace tandem::gateway::command {
namespace {

using text::value;

std::string steps_of(const job_view& job) {
  if (job.step_count <= 0) return "";
  return fmt::format("{}/{} ({}%)", job.step, job.step_count, 100 * job.step / job.step_count);
}

// [a, b] as "a, b"; a number as it was written.
std::string plain(const value& v) {
  if (!v.if_array()) return words(v);
  std::string all;
  for (const value& item : *v.if_array()) all += (all.empty() ? "" : ", ") + words(item);
  return all;
}

// Each setting as "name value"; what stands elsewhere already is passed over.
std::vector<std::vector<std::string>> settings_rows(const job_view& job) {
  std::vector<std::vector<std::string>> rows;
  const bool epochs_shown = !member(member(job.whole, "hyperparameters"), "n_epochs").is_null();
  const auto add = [&](const value& object) {
    if (!object.if_object()) return;
    for (const auto& [name, v] : *object.if_object()) {
      const bool shown_above = name == "step" || name == "steps" || name == "step_count" ||
                               name == "trained_tokens" || name == "seed" ||
                               (name == "epochs" && epochs_shown);
      if (shown_above || v.is_null() || v.if_object()) continue;
      rows.push_back({"  " + name, plain(v)});
    }
  };
  add(member(job.whole, "hyperparameters"));
  add(member(job.whole, "tandem"));
  return rows;
}

}  // namespace

std::string utc_time(std::int64_t seconds) {
  if (seconds <= 0) return "";
  const auto time = static_cast<std::time_t>(seconds);
  std::tm parts{};
  ::gmtime_r(&time, &parts);
  std::array<char, 32> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M", &parts)};
}

void print_jobs(std::ostream& out, const std::vector<job_view>& jobs) {
  std::vector<std::vector<std::string>> rows = {
      {"JOB", "STATUS", "STEPS", "BASE", "CREATED (UTC)", "MODEL"}};
  for (const job_view& job : jobs) {
    rows.push_back({job.id, job.status, steps_of(job), job.base_model, utc_time(job.created_at),
                    job.fine_tuned_model});
  }
  print_table(out, rows);
}

void print_job(std::ostream& out, const job_view& job) {
  std::vector<std::vector<std::string>> rows;
  const auto row = [&](const char* name, std::string text) {
    if (!text.empty()) rows.push_back({name, std::move(text)});
  };
  row("job", job.id);
  row("status", job.status);
  row("error", job.error_message);
  row("base", job.base_model);
  row("model", job.fine_tuned_model);
  row("steps", steps_of(job));
  row("tokens", job.trained_tokens > 0 ? std::to_string(job.trained_tokens) : "");
  row("created", utc_time(job.created_at));
  row("finished", utc_time(job.finished_at));
  if (job.finished_at > job.created_at)
    row("took", human_duration(job.finished_at - job.created_at));
  row("training file", words(member(job.whole, "training_file")));
  row("validation file", words(member(job.whole, "validation_file")));
  row("result files", plain(member(job.whole, "result_files")));
  row("seed", words(member(job.whole, "seed")));
  auto settings = settings_rows(job);
  if (!settings.empty()) rows.push_back({"settings", ""});
  rows.insert(rows.end(), settings.begin(), settings.end());
  print_table(out, rows);
}

}  // namespace tandem::gateway::command
