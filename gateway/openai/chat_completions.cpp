// POST /v1/chat/completions.
#include "gateway/openai/chat_prompt.hpp"
#include "gateway/openai/endpoint.hpp"
#include "gateway/openai/generation.hpp"

namespace tandem::gateway::openai {

namespace {

result<void> answer_chat(const endpoint_context& endpoint, const http_request& request,
                         const std::shared_ptr<responder>& to) {
  if (auto ready = check_ready(*endpoint.door); !ready) return ready;
  const auto body = request_body::parse(request.body);
  if (!body) return body.error();
  const auto fields = read_fields(text_route::chat, *body);
  if (!fields) return fields.error();
  const auto model = find_model(*endpoint.door, fields->model);
  if (!model) return model.error();
  if (fields->max_tokens == 0 && !fields->max_completion_tokens)
    return bad_value("max_tokens", "expected a value >= 1, but got 0 instead");

  const auto base = generation_without_prompt(*fields, **model);
  if (!base) return base.error();
  auto prompt = chat_prompt(*fields, **model);
  if (!prompt) return prompt.error();
  answer_context context = context_of(*fields, *model, endpoint, "chatcmpl-");
  if (fields->return_token_ids) context.prompts.push_back(*prompt);
  auto generation =
      with_prompt(*base, std::move(*prompt), *fields, **model, default_length::rest_of_context);
  if (!generation) return generation.error();

  std::vector<serve::generation_request> requests;
  requests.push_back(std::move(*generation));
  answer_with(endpoint, *fields, std::move(context), chat_format(), std::move(requests), to);
  return {};
}

}  // namespace

http_handler chat_completions(endpoint_context context) {
  return answering([context = std::move(context)](const http_request& request,
                                                  const std::shared_ptr<responder>& to) {
    return answer_chat(context, request, to);
  });
}

}  // namespace tandem::gateway::openai
