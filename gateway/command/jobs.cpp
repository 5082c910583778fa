#include "gateway/command/jobs.hpp"

#include "gateway/command/json_view.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::gateway::command {
namespace {

using text::value;

constexpr std::string_view id_prefix = "ftjob-";
constexpr std::size_t page_size = 100;
constexpr std::size_t jobs_searched_max = 10'000;  // for the beginning of an id
constexpr std::size_t events_read_max = 1'000'000;

// Ids go into paths as they are.
bool is_word(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::ranges::all_of(id, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
  });
}

error no_such_job(std::string_view id) {
  return {errc::not_found, fmt::format("no job {}: `tandem jobs` lists them", id), {}};
}

// A list over its pages: each has the last one's last id in `after`.
result<value::array> read_pages(http_client& client, const std::string& path, std::size_t limit) {
  value::array all;
  std::string after;
  while (all.size() < limit) {
    std::string target = fmt::format("{}?limit={}", path, std::min(page_size, limit - all.size()));
    if (!after.empty()) target += "&after=" + after;
    const auto page = client.get_json(target);
    if (!page) return page.error();
    const value::array& rows = list(member(*page, "data"));
    all.insert(all.end(), rows.begin(), rows.end());
    const bool* more = member(*page, "has_more").if_bool();
    if (rows.empty() || !more || !*more) break;
    std::string last = words(member(rows.back(), "id"));
    if (last == after || !is_word(last)) break;  // a server that goes in circles
    after = std::move(last);
  }
  return all;
}

}  // namespace

bool job_view::ended() const {
  return status == "succeeded" || status == "failed" || status == "cancelled";
}

job_view job_from(const value& object) {
  const value& own = member(object, "tandem");
  job_view job;
  job.id = words(member(object, "id"));
  job.status = words(member(object, "status"));
  job.base_model = words(member(object, "model"));
  job.fine_tuned_model = words(member(object, "fine_tuned_model"));
  job.error_message = words(member(member(object, "error"), "message"));
  job.created_at = integer_or(member(object, "created_at"), 0);
  job.finished_at = integer_or(member(object, "finished_at"), 0);
  job.step = integer_or(member(own, "step"), 0);
  job.step_count = integer_or(member(own, "step_count"), integer_or(member(own, "steps"), 0));
  // OpenAI's own field is null until the job has ended.
  job.trained_tokens =
      integer_or(member(object, "trained_tokens"), integer_or(member(own, "trained_tokens"), 0));
  job.whole = object;
  return job;
}

job_event event_from(const value& object) {
  job_event event;
  event.id = words(member(object, "id"));
  event.created_at = integer_or(member(object, "created_at"), 0);
  event.level = words(member(object, "level"));
  event.message = words(member(object, "message"));
  event.is_metrics = words(member(object, "type")) == "metrics";
  event.data = member(object, "data");
  event.whole = object;
  return event;
}

std::string job_target(std::string_view id, std::string_view rest) {
  return fmt::format("{}/{}{}", jobs_path, id, rest);
}

result<std::vector<job_view>> list_jobs(http_client& client, std::size_t limit) {
  const auto rows = read_pages(client, std::string(jobs_path), limit);
  if (!rows) return rows.error();
  std::vector<job_view> jobs;
  for (const value& row : *rows) jobs.push_back(job_from(row));
  return jobs;
}

result<job_view> find_job(http_client& client, std::string_view id) {
  if (!is_word(id)) return no_such_job(id);
  http_call call;
  call.target = job_target(id);
  const auto answer = client.exchange(call);
  if (!answer) return answer.error();
  if (answer->status == 404) return no_such_job(id);
  if (answer->status / 100 != 2) return refusal_of(client.address(), *answer);
  const auto object = value::from_json(answer->body);
  if (!object) return object.error();
  return job_from(*object);
}

result<job_view> find_job_by_prefix(http_client& client, std::string_view beginning) {
  auto exact = find_job(client, beginning);
  if (exact || exact.error().code != errc::not_found || !is_word(beginning)) return exact;
  auto jobs = list_jobs(client, jobs_searched_max);
  if (!jobs) return jobs.error();
  std::erase_if(*jobs, [&](const job_view& job) {
    const std::string_view id = job.id;
    return !id.starts_with(beginning) &&
           !(id.starts_with(id_prefix) && id.substr(id_prefix.size()).starts_with(beginning));
  });
  if (jobs->empty()) return no_such_job(beginning);
  if (jobs->size() > 1) {
    return error{errc::bad_request,
                 fmt::format("{} jobs begin with {}, {} and {} among them: give more of the id",
                             jobs->size(), beginning, (*jobs)[0].id, (*jobs)[1].id),
                 {}};
  }
  return jobs->front();
}

result<std::vector<job_event>> all_events(http_client& client, std::string_view id) {
  const auto rows = read_pages(client, job_target(id, "/events"), events_read_max);
  if (!rows) return rows.error();
  std::vector<job_event> events;
  for (const value& row : *rows) events.push_back(event_from(row));
  std::ranges::reverse(events);
  return events;
}

}  // namespace tandem::gateway::command
