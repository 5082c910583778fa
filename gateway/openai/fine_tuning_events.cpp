// What a job has to tell: its events as a list or as a stream, and its checkpoints.
#include "gateway/openai/endpoint.hpp"
#include "gateway/openai/fine_tuning_feed.hpp"
#include "gateway/openai/fine_tuning_format.hpp"
#include "gateway/openai/list_query.hpp"

namespace tandem::gateway::openai {

namespace {

constexpr int events_listed = 20;
constexpr int checkpoints_listed = 10;
constexpr int listed_max = 1000;

// ?stream=true as OpenAI's API once had it, or the header that browsers' EventSource sends.
bool wants_stream(const http_request& request) {
  const std::string asked = request.query_parameter("stream");
  if (!asked.empty()) return asked == "true" || asked == "1";
  return request.header("accept").find("text/event-stream") != std::string_view::npos;
}

}  // namespace

http_handler list_job_events(endpoint_context context, std::shared_ptr<job_feed> feed) {
  return answering([context = std::move(context), feed = std::move(feed)](
                       const http_request& request, const std::shared_ptr<responder>& to) {
    const std::string& id = request.path_parameters.front();
    if (wants_stream(request)) {
      if (const auto job = context.store->find_job(id); !job) return result<void>(job.error());
      begin_event_stream(to);
      feed->follow(id, to);
      return result<void>();
    }
    const auto query = read_list_query(request, events_listed, listed_max);
    if (!query) return result<void>(query.error());
    const auto page = context.store->list_events(id, query->after, query->limit);
    if (!page) return result<void>(page.error());
    http_response response;
    response.body = list_body(page->rows, page->has_more, append_job_event);
    to->send(std::move(response));
    return result<void>();
  });
}

http_handler list_job_checkpoints(endpoint_context context) {
  return answering([context = std::move(context)](const http_request& request,
                                                  const std::shared_ptr<responder>& to) {
    const auto query = read_list_query(request, checkpoints_listed, listed_max);
    if (!query) return result<void>(query.error());
    const auto page = context.store->list_checkpoints(request.path_parameters.front(), query->after,
                                                      query->limit);
    if (!page) return result<void>(page.error());
    http_response response;
    response.body = list_body(page->rows, page->has_more, append_job_checkpoint);
    to->send(std::move(response));
    return result<void>();
  });
}

}  // namespace tandem::gateway::openai
