// /v1/fine_tuning/jobs: jobs are asked for, looked at, cancelled, paused and resumed here. All of
// it is a change of the store; who trains watches that.
#include "gateway/http_error.hpp"
#include "gateway/openai/endpoint.hpp"
#include "gateway/openai/fine_tuning_format.hpp"
#include "gateway/openai/fine_tuning_request.hpp"
#include "gateway/openai/generation.hpp"
#include "gateway/openai/list_query.hpp"
#include "gateway/refusal.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <random>

namespace tandem::gateway::openai {

namespace {

using store::job_status;

constexpr int jobs_listed = 20;
constexpr int jobs_listed_max = 1000;
constexpr std::size_t key_bytes_max = 255;

http_response job_response(const store::job_record& job) {
  http_response response;
  append_job(response.body, job);
  return response;
}

result<void> check_file(const store::store& files, const std::string& id, std::string_view field) {
  if (id.empty()) return {};
  const auto file = files.find_file(id);
  if (!file && file.error().code != errc::not_found) return file.error();
  if (!file)
    return bad_value(field, fmt::format("there is no file '{}'; upload it to /v1/files with "
                                        "purpose 'fine-tune'",
                                        quotable(id)));
  if (file->purpose != "fine-tune")
    return bad_value(field, fmt::format("{} was uploaded with purpose '{}'; 'fine-tune' is needed",
                                        file->id, file->purpose));
  return {};
}

result<void> check_model(const engine& door, const std::string& model) {
  // A version is trained from its base: its adapter or weights are no base of another job yet.
  if (model.starts_with("ft:"))
    return not_built("model", fmt::format("training goes on from base models only, and '{}' is "
                                          "tuned already; name its base",
                                          quotable(model)));
  const auto served = find_model(door, model);
  if (!served) return served.error();
  return {};
}

result<std::string> idempotency_key(const http_request& request) {
  const std::string_view key = request.header("idempotency-key");
  const bool plain =
      std::all_of(key.begin(), key.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (key.size() > key_bytes_max || !plain)
    return bad_value("Idempotency-Key",
                     fmt::format("at most {} printable characters are possible", key_bytes_max));
  return std::string(key);
}

std::int64_t random_seed() {
  thread_local std::mt19937 random{std::random_device{}()};
  return random() >> 1U;
}

result<void> create(const endpoint_context& context, const http_request& request, responder& to) {
  const auto body = request_body::parse(request.body);
  if (!body) return body.error();
  auto asked = read_job_request(*body);
  if (!asked) return asked.error();
  auto key = idempotency_key(request);
  if (!key) return key.error();
  auto& job = asked->job;
  if (auto good = check_model(*context.door, job.model); !good) return good;
  if (auto good = check_file(*context.store, job.training_file, "training_file"); !good)
    return good;
  if (auto good = check_file(*context.store, job.validation_file, "validation_file"); !good)
    return good;
  job.idempotency_key = std::move(*key);
  if (!asked->seed_given) job.seed = random_seed();
  const auto made = context.store->add_job(job);
  if (!made) {
    auto why = made.error();
    if (why.code == errc::not_found) why.code = errc::bad_request;  // deleted since it was checked
    return why;
  }
  if (!job.idempotency_key.empty() && !same_job(*asked, *made))
    return bad_value("Idempotency-Key",
                     fmt::format("{} was made with it, by another request", made->id));
  http_response response = job_response(*made);
  for (const auto& warning : asked->warnings)
    response.headers.emplace_back("x-tandem-warning", warning);
  to.send(std::move(response));
  return {};
}

struct job_action {
  std::string_view name;  // "cancelled", for the refusal
  std::vector<job_status> from;
  job_status to;
};

const job_action cancelling{
    "cancelled",
    {job_status::validating_files, job_status::queued, job_status::running, job_status::paused},
    job_status::cancelled};
const job_action pausing{"paused", {job_status::queued, job_status::running}, job_status::paused};
const job_action resuming{"resumed", {job_status::paused}, job_status::queued};

http_handler acting(endpoint_context context, const job_action& action) {
  return answering([context = std::move(context), &action](const http_request& request,
                                                           const std::shared_ptr<responder>& to) {
    const std::string& id = request.path_parameters.front();
    const auto job = context.store->change_status(id, action.from, action.to);
    if (job) {
      to->send(job_response(*job));
      return result<void>();
    }
    auto why = job.error();
    if (why.code == errc::conflict) {
      // 400 as OpenAI answers; clients would repeat a 409 by themselves, in vain.
      why.code = errc::bad_request;
      if (const auto now = context.store->find_job(id))
        why.detail =
            fmt::format("Job {} is {} and cannot be {}.", id, name_of(now->status), action.name);
    }
    return result<void>(why);
  });
}

// metadata[key]=value, or metadata=null for jobs without any.
store::job_filter filter_of(const http_request& request) {
  store::job_filter filter;
  for (const auto& [name, value] : query_pairs(request)) {
    constexpr std::string_view opening = "metadata[";
    if (name == "metadata" && value == "null")
      filter.without_metadata = true;
    else if (name.starts_with(opening) && name.ends_with(']') && filter.metadata.size() < 16)
      filter.metadata.emplace_back(name.substr(opening.size(), name.size() - opening.size() - 1),
                                   value);
  }
  return filter;
}

}  // namespace

http_handler create_job(endpoint_context context) {
  return answering([context = std::move(context)](const http_request& request,
                                                  const std::shared_ptr<responder>& to) {
    return create(context, request, *to);
  });
}

http_handler list_jobs(endpoint_context context) {
  return answering([context = std::move(context)](const http_request& request,
                                                  const std::shared_ptr<responder>& to) {
    const auto query = read_list_query(request, jobs_listed, jobs_listed_max);
    if (!query) return result<void>(query.error());
    const auto page = context.store->list_jobs(query->after, query->limit, filter_of(request));
    if (!page) return result<void>(page.error());
    http_response response;
    response.body = list_body(page->rows, page->has_more, append_job);
    to->send(std::move(response));
    return result<void>();
  });
}

http_handler retrieve_job(endpoint_context context) {
  return answering([context = std::move(context)](const http_request& request,
                                                  const std::shared_ptr<responder>& to) {
    const auto job = context.store->find_job(request.path_parameters.front());
    if (!job) return result<void>(job.error());
    to->send(job_response(*job));
    return result<void>();
  });
}

http_handler cancel_job(endpoint_context context) { return acting(std::move(context), cancelling); }
http_handler pause_job(endpoint_context context) { return acting(std::move(context), pausing); }
http_handler resume_job(endpoint_context context) { return acting(std::move(context), resuming); }

}  // namespace tandem::gateway::openai
