// Fine-tuning jobs as the commands see them over /v1/fine_tuning/jobs: reading them, by their whole
// id or a unique beginning of it, and their events.
#pragma once

#include "gateway/command/http_client.hpp"
#include "runtime/text/value.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::gateway::command {

constexpr std::string_view jobs_path = "/v1/fine_tuning/jobs";

// What every command needs of a job; `whole` is the server's own object.
struct job_view {
  std::string id;
  std::string status;
  std::string base_model;
  std::string fine_tuned_model;  // empty until a version is published
  std::string error_message;     // of a failed job
  std::int64_t created_at = 0;
  std::int64_t finished_at = 0;
  std::int64_t step = 0;
  std::int64_t step_count = 0;
  std::int64_t trained_tokens = 0;
  text::value whole;

  bool ended() const;
};
job_view job_from(const text::value& object);

// One event; the numbers of a "metrics" event in its `data`.
struct job_event {
  std::string id;
  std::int64_t created_at = 0;
  std::string level;
  std::string message;
  bool is_metrics = false;
  text::value data;
  text::value whole;
};
job_event event_from(const text::value& object);

// "/v1/fine_tuning/jobs/ID" and what comes behind it.
std::string job_target(std::string_view id, std::string_view rest = {});

// Newest first; at most `limit`, over as many pages as that takes.
result<std::vector<job_view>> list_jobs(http_client& client, std::size_t limit);
// Exactly this id. One that is no id is refused before anybody is asked.
result<job_view> find_job(http_client& client, std::string_view id);
// The same, or the one job whose id begins so ("ftjob-" may be left out).
result<job_view> find_job_by_prefix(http_client& client, std::string_view beginning);
// All events, oldest first.
result<std::vector<job_event>> all_events(http_client& client, std::string_view id);

}  // namespace tandem::gateway::command
