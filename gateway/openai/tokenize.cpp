// POST /tokenize, /detokenize and /render: the prompt as the model sees it, without running it.
#include "gateway/json_writer.hpp"
#include "gateway/openai/chat_prompt.hpp"
#include "gateway/openai/endpoint.hpp"
#include "gateway/openai/field_rules.hpp"
#include "gateway/openai/generation.hpp"
#include "gateway/openai/logprobs.hpp"

#include <fmt/format.h>

namespace tandem::gateway::openai {

namespace {

struct asked {
  request_fields fields;
  std::shared_ptr<const served_model> model;
};

// `body` must outlive the fields: they look into it.
result<asked> read(text_route route, const request_body& body, const engine& door) {
  auto fields = read_fields(route, body);
  if (!fields) return fields.error();
  auto model = find_model_or_only(door, fields->model);
  if (!model) return model.error();
  if ((*model)->tokenizer == nullptr)
    return error{errc::bad_request, fmt::format("The model '{}' has no tokenizer.", (*model)->id),
                 "model"};
  return asked{std::move(*fields), std::move(*model)};
}

result<std::vector<serve::token_id>> ids_of(const asked& what) {
  if (what.fields.messages) return chat_prompt(what.fields, *what.model);
  if (!what.fields.prompt)
    return error{errc::bad_request, "Missing required parameter: 'prompt' or 'messages'.",
                 "prompt"};
  const auto text = read_string({"prompt", *what.fields.prompt}, std::string::npos);
  if (!text) return text.error();
  return what.model->tokenizer->encode(
      *text, {.add_special_tokens = what.fields.add_special_tokens.value_or(true),
              .parse_special = what.fields.parse_special});
}

void append_spellings(std::string& out, const text::tokenizer& tokenizer,
                      const std::vector<serve::token_id>& ids) {
  out += '[';
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) out += ',';
    append_json_string(out, tokenizer.token_spelling(ids[i]));
  }
  out += ']';
}

result<void> answer_tokenize(const engine& door, const http_request& request,
                             const std::shared_ptr<responder>& to) {
  const auto body = request_body::parse(request.body);
  if (!body) return body.error();
  const auto what = read(text_route::tokenize, *body, door);
  if (!what) return what.error();
  const auto ids = ids_of(*what);
  if (!ids) return ids.error();
  http_response response;
  response.headers = warning_headers(what->fields);
  response.body = R"({"count":)";
  append_number(response.body, static_cast<std::int64_t>(ids->size()));
  response.body += R"(,"max_model_len":)";
  append_number(response.body, what->model->context_length);
  response.body += R"(,"tokens":)";
  append_ids(response.body, *ids);
  response.body += R"(,"token_strs":)";
  if (what->fields.return_token_strings)
    append_spellings(response.body, *what->model->tokenizer, *ids);
  else
    response.body += "null";
  response.body += '}';
  to->send(std::move(response));
  return {};
}

result<void> answer_detokenize(const engine& door, const http_request& request,
                               const std::shared_ptr<responder>& to) {
  const auto body = request_body::parse(request.body);
  if (!body) return body.error();
  if (body->fields().at_key("tokens").error() != simdjson::SUCCESS) return missing("tokens");
  const auto what = read(text_route::detokenize, *body, door);
  if (!what) return what.error();
  for (const serve::token_id id : what->fields.tokens)
    if (id >= what->model->vocabulary_size)
      return bad_value("tokens", fmt::format("token id {} is outside the vocabulary of {}", id,
                                             what->model->vocabulary_size));
  http_response response;
  response.body = R"({"prompt":)";
  append_json_string(response.body, what->model->tokenizer->decode(what->fields.tokens, false));
  response.body += '}';
  to->send(std::move(response));
  return {};
}

result<void> answer_render(const engine& door, const http_request& request,
                           const std::shared_ptr<responder>& to) {
  const auto body = request_body::parse(request.body);
  if (!body) return body.error();
  const auto what = read(text_route::render, *body, door);
  if (!what) return what.error();
  const auto pieces = render_chat(what->fields, *what->model);
  if (!pieces) return pieces.error();
  std::string text;
  for (const text::prompt_piece& piece : *pieces) text += piece.text;
  const auto ids = what->model->tokenizer->encode_prompt(*pieces);
  http_response response;
  response.headers = warning_headers(what->fields);
  response.body = R"({"text":)";
  append_json_string(response.body, text);
  response.body += R"(,"count":)";
  append_number(response.body, static_cast<std::int64_t>(ids.size()));
  response.body += R"(,"tokens":)";
  append_ids(response.body, ids);
  response.body += '}';
  to->send(std::move(response));
  return {};
}

using answerer = result<void> (*)(const engine&, const http_request&,
                                  const std::shared_ptr<responder>&);

http_handler with_engine(endpoint_context context, answerer answer) {
  return answering([context = std::move(context), answer](const http_request& request,
                                                          const std::shared_ptr<responder>& to) {
    if (auto ready = check_ready(*context.door); !ready) return ready;
    return answer(*context.door, request, to);
  });
}

}  // namespace

http_handler tokenize(endpoint_context context) {
  return with_engine(std::move(context), answer_tokenize);
}

http_handler detokenize(endpoint_context context) {
  return with_engine(std::move(context), answer_detokenize);
}

http_handler render(endpoint_context context) {
  return with_engine(std::move(context), answer_render);
}

}  // namespace tandem::gateway::openai
