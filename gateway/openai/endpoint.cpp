#include "gateway/openai/endpoint.hpp"

#include "gateway/http_error.hpp"
#include "gateway/openai/reply.hpp"

#include <chrono>
#include <random>

namespace tandem::gateway::openai {

http_handler answering(
    std::function<result<void>(const http_request&, const std::shared_ptr<responder>&)> handler) {
  return [handler = std::move(handler)](const std::shared_ptr<const http_request>& request,
                                        const std::shared_ptr<responder>& to) {
    if (const auto done = handler(*request, to); !done) to->send(error_response(done.error()));
  };
}

std::string new_id(std::string_view prefix) {
  thread_local std::mt19937_64 random{std::random_device{}()};
  constexpr std::string_view digits = "0123456789abcdef";
  std::string id(prefix);
  std::uint64_t bits = 0;
  for (int i = 0; i < 24; ++i) {
    if (i % 16 == 0) bits = random();
    id += digits[bits & 15U];
    bits >>= 4U;
  }
  return id;
}

answer_context context_of(const request_fields& fields, std::shared_ptr<const served_model> model,
                          const endpoint_context& endpoint, std::string_view id_prefix) {
  answer_context context;
  context.id = new_id(id_prefix);
  context.created = std::chrono::duration_cast<std::chrono::seconds>(
                        std::chrono::system_clock::now().time_since_epoch())
                        .count();
  context.model = std::move(model);
  context.choices_per_prompt = fields.choices;
  context.include_usage = fields.include_usage;
  context.continuous_usage = fields.continuous_usage;
  if (fields.chat_logprobs) context.logprobs = fields.top_logprobs.value_or(0);
  if (fields.logprobs) context.logprobs = *fields.logprobs;
  context.prompt_logprobs = fields.prompt_logprobs.value_or(-1);
  context.return_token_ids = fields.return_token_ids;
  context.tokens_as_ids = fields.tokens_as_ids;
  context.headers = warning_headers(fields);
  context.heartbeat_ms = endpoint.heartbeat_ms;
  return context;
}

void answer_with(const endpoint_context& endpoint, const request_fields& fields,
                 answer_context context, const answer_format& format,
                 std::vector<serve::generation_request> requests, std::shared_ptr<responder> to) {
  using namespace std::chrono;
  const serve::time_ns now =
      duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
  for (serve::generation_request& request : requests) {
    request.arrived = now;
    request.deadline = now + std::int64_t{endpoint.request_timeout_ms} * 1'000'000;
  }
  auto make = fields.stream ? stream_reply : whole_reply;
  make(std::move(context), format, endpoint.door, std::move(to))->start(std::move(requests));
}

header_list warning_headers(const request_fields& fields) {
  header_list headers;
  for (const std::string& warning : fields.warnings)
    headers.emplace_back("x-tandem-warning", warning);
  return headers;
}

}  // namespace tandem::gateway::openai
