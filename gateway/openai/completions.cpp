// POST /v1/completions: text or token ids in, one or many prompts.
#include "gateway/openai/chat_prompt.hpp"
#include "gateway/openai/endpoint.hpp"
#include "gateway/openai/field_rules.hpp"
#include "gateway/openai/generation.hpp"

#include <fmt/format.h>

namespace tandem::gateway::openai {

namespace dom = simdjson::dom;

namespace {

// Choices of all prompts together: what one request may occupy.
constexpr std::size_t choices_of_request_max = 1024;

struct one_prompt {
  std::vector<serve::token_id> ids;
  std::string text;  // for echo
};

constexpr std::string_view expected_prompt =
    "a string, an array of strings, an array of token ids, or an array of arrays of token ids";

result<one_prompt> prompt_of_text(const request_fields& fields, const served_model& model,
                                  std::string_view text, std::string_view name) {
  if (model.tokenizer == nullptr)
    return bad_value(name,
                     fmt::format("the model '{}' has no tokenizer; send token ids", model.id));
  if (const std::int64_t least = fewest_tokens(text.size(), *model.tokenizer);
      least > model.context_length)
    return context_overflow(model.context_length, least, fields.max_tokens.value_or(16), name);
  one_prompt prompt;
  prompt.ids =
      model.tokenizer->encode(text, {.add_special_tokens = fields.add_special_tokens.value_or(true),
                                     .parse_special = fields.parse_special});
  if (fields.echo) prompt.text = text;
  return prompt;
}

result<one_prompt> prompt_of_ids(const request_fields& fields, const served_model& model,
                                 const json_field& list) {
  auto ids = read_token_ids(list, static_cast<std::size_t>(std::int64_t{1} << 31U));
  if (!ids) return ids.error();
  for (const serve::token_id id : *ids)
    if (id >= model.vocabulary_size)
      return bad_value(list.name, fmt::format("token id {} is outside the vocabulary of {}", id,
                                              model.vocabulary_size));
  one_prompt prompt;
  if (fields.echo && model.tokenizer != nullptr) prompt.text = model.tokenizer->decode(*ids, false);
  prompt.ids = std::move(*ids);
  return prompt;
}

result<std::vector<one_prompt>> read_prompts(const request_fields& fields,
                                             const served_model& model) {
  if (!fields.prompt) return missing("prompt");
  const json_field whole{"prompt", *fields.prompt};
  std::vector<one_prompt> prompts;
  const auto add = [&](result<one_prompt> one) -> result<void> {
    if (!one) return one.error();
    if (one->ids.empty())
      return bad_value("prompt",
                       "an empty prompt has nothing to continue; give at least one token");
    prompts.push_back(std::move(*one));
    return {};
  };
  if (whole.value.is_string()) {
    if (auto added = add(prompt_of_text(fields, model, std::string_view(whole.value), "prompt"));
        !added)
      return added.error();
    return prompts;
  }
  if (!whole.value.is_array()) return wrong_type(whole, expected_prompt);
  const dom::array list(whole.value);
  if (list.size() == 0) return bad_value("prompt", "it must not be an empty array");
  if (list.at(0).is_number()) {
    if (auto added = add(prompt_of_ids(fields, model, whole)); !added) return added.error();
    return prompts;
  }
  if (list.size() > prompts_max)
    return bad_value("prompt", fmt::format("expected at most {} prompts, but got {} instead",
                                           prompts_max, list.size()));
  for (const dom::element item : list) {
    const json_field one{fmt::format("prompt[{}]", prompts.size()), item};
    if (!item.is_string() && !item.is_array()) return wrong_type(one, "a string or token ids");
    auto added = item.is_string()
                     ? add(prompt_of_text(fields, model, std::string_view(item), one.name))
                     : add(prompt_of_ids(fields, model, one));
    if (!added) return added.error();
  }
  return prompts;
}

result<void> answer_completion(const endpoint_context& endpoint, const http_request& request,
                               const std::shared_ptr<responder>& to) {
  if (auto ready = check_ready(*endpoint.door); !ready) return ready;
  const auto body = request_body::parse(request.body);
  if (!body) return body.error();
  const auto fields = read_fields(text_route::completions, *body);
  if (!fields) return fields.error();
  const auto model = find_model(*endpoint.door, fields->model);
  if (!model) return model.error();

  const auto base = generation_without_prompt(*fields, **model);
  if (!base) return base.error();
  auto prompts = read_prompts(*fields, **model);
  if (!prompts) return prompts.error();
  if (prompts->size() * static_cast<std::size_t>(fields->choices) > choices_of_request_max)
    return bad_value("n", fmt::format("{} prompts times n = {} is above {} choices in one request",
                                      prompts->size(), fields->choices, choices_of_request_max));
  answer_context context = context_of(*fields, *model, endpoint, "cmpl-");
  context.hide_completion = fields->max_tokens == 0;
  const bool keep_ids = fields->return_token_ids || fields->echo;
  std::vector<serve::generation_request> requests;
  for (one_prompt& prompt : *prompts) {
    if (keep_ids) context.prompts.push_back(prompt.ids);
    if (fields->echo) context.echo.push_back(std::move(prompt.text));
    auto generation =
        with_prompt(*base, std::move(prompt.ids), *fields, **model, default_length::sixteen);
    if (!generation) return generation.error();
    requests.push_back(std::move(*generation));
  }
  answer_with(endpoint, *fields, std::move(context), completion_format(), std::move(requests), to);
  return {};
}

}  // namespace

http_handler completions(endpoint_context context) {
  return answering([context = std::move(context)](const http_request& request,
                                                  const std::shared_ptr<responder>& to) {
    return answer_completion(context, request, to);
  });
}

}  // namespace tandem::gateway::openai
