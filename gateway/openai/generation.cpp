#include "gateway/openai/generation.hpp"

#include "gateway/openai/chat_prompt.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <random>

namespace tandem::gateway::openai {

namespace {

constexpr std::size_t listed_models_max = 8;
constexpr int default_completion_tokens = 16;  // OpenAI's for /v1/completions

error unknown_model(const engine& e, const std::string& id) {
  std::string known;
  std::size_t listed = 0;
  for (const auto& model : e.models()) {
    if (listed == listed_models_max) {
      known += ", …";
      break;
    }
    known += fmt::format("{}'{}'", listed++ == 0 ? "" : ", ", model->id);
  }
  return {errc::not_found,
          fmt::format("The model '{}' does not exist or is not served here. Served now: {}.", id,
                      known.empty() ? "none" : known),
          "model"};
}

std::uint64_t drawn_seed() {
  thread_local std::random_device device;
  return (std::uint64_t{device()} << 32U) | device();
}

void append_unique(std::vector<std::int32_t>& ids, const std::vector<std::int32_t>& more) {
  for (const std::int32_t id : more)
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
}

serve::sampling_parameters sampling_of(const request_fields& f, const served_model& model) {
  const model::generation_defaults& own = model.defaults;
  serve::sampling_parameters sampling;
  sampling.temperature = f.temperature.value_or(own.temperature.value_or(1.0F));
  sampling.top_p = f.top_p.value_or(own.top_p.value_or(1.0F));
  sampling.top_k = std::max(0, f.top_k.value_or(own.top_k.value_or(0)));
  sampling.min_p = f.min_p.value_or(own.min_p.value_or(0.0F));
  sampling.presence_penalty = f.presence_penalty.value_or(0.0F);
  sampling.frequency_penalty = f.frequency_penalty.value_or(0.0F);
  sampling.repetition_penalty =
      f.repetition_penalty.value_or(own.repetition_penalty.value_or(1.0F));
  sampling.logit_bias = f.logit_bias;
  sampling.seed = f.seed ? static_cast<std::uint64_t>(*f.seed) : drawn_seed();
  if (f.chat_logprobs) sampling.logprobs = f.top_logprobs.value_or(0);
  if (f.logprobs) sampling.logprobs = *f.logprobs;
  if (f.prompt_logprobs) sampling.prompt_logprobs = *f.prompt_logprobs;
  if (f.echo && f.logprobs)
    sampling.prompt_logprobs = std::max(sampling.prompt_logprobs, *f.logprobs);
  return sampling;
}

}  // namespace

result<std::shared_ptr<const served_model>> find_model(const engine& e, const std::string& id) {
  if (id.empty())
    return error{errc::bad_request, "You must provide a model parameter; /v1/models lists them.",
                 "model"};
  for (const auto& model : e.models())
    if (model->id == id) return model;
  return unknown_model(e, id);
}

result<std::shared_ptr<const served_model>> find_model_or_only(const engine& e,
                                                               const std::string& id) {
  if (!id.empty()) return find_model(e, id);
  // Versions of a base are not in doubt with it: they share its tokenizer and template.
  auto models = e.models();
  std::erase_if(models, [](const auto& model) { return !model->parent.empty(); });
  if (models.size() == 1) return models.front();
  return find_model(e, id);
}

result<void> check_ready(const engine& e) {
  switch (e.state()) {
    case readiness::ready:
      return {};
    case readiness::starting:
      return error{errc::unavailable, "The server is starting: " + e.state_detail(), ""};
    case readiness::draining:
      return error{errc::unavailable, "The server is shutting down and takes no new requests.", ""};
    case readiness::failed:
      break;
  }
  return error{errc::unavailable, "The engine has failed: " + e.state_detail(), ""};
}

result<serve::generation_request> generation_without_prompt(const request_fields& fields,
                                                            const served_model& model) {
  const auto in_vocabulary = [&](std::int32_t id) { return id < model.vocabulary_size; };
  for (const auto& [id, bias] : fields.logit_bias)
    if (!in_vocabulary(id))
      return bad_value("logit_bias", fmt::format("token id {} is outside the vocabulary of {}", id,
                                                 model.vocabulary_size));
  for (const std::int32_t id : fields.stop_token_ids)
    if (!in_vocabulary(id))
      return bad_value("stop_token_ids", fmt::format("token id {} is outside the vocabulary of {}",
                                                     id, model.vocabulary_size));
  if (model.tokenizer == nullptr && !fields.stop.empty())
    return bad_value("stop",
                     "this model has no tokenizer, so no text to stop at; use "
                     "stop_token_ids");

  serve::generation_request request;
  request.model = model.id;
  request.sampling = sampling_of(fields, model);
  request.stops.min_tokens = fields.min_tokens;
  request.stops.ignore_eos = fields.ignore_eos;
  request.stops.eos_ids = model.eos_ids;
  append_unique(request.stops.eos_ids, model.defaults.eos_ids);
  request.stops.stop_token_ids = fields.stop_token_ids;
  request.stops.stop = fields.stop;
  request.stops.include_stop = fields.include_stop;
  request.choices = fields.choices;
  request.best_of = fields.choices;
  request.priority = fields.priority;
  request.cache_salt = fields.cache_salt;
  request.skip_special_tokens = fields.skip_special_tokens;
  request.want_text = model.tokenizer != nullptr;
  return request;
}

result<serve::generation_request> with_prompt(const serve::generation_request& base,
                                              std::vector<serve::token_id> prompt,
                                              const request_fields& fields,
                                              const served_model& model, default_length otherwise) {
  const auto prompt_tokens = static_cast<std::int64_t>(prompt.size());
  const std::int64_t room = model.context_length - prompt_tokens;
  const auto asked =
      fields.max_completion_tokens ? fields.max_completion_tokens : fields.max_tokens;
  std::int64_t completion = otherwise == default_length::sixteen ? default_completion_tokens
                                                                 : std::max<std::int64_t>(room, 1);
  if (asked) completion = *asked;
  if (completion > room)
    return context_overflow(model.context_length, prompt_tokens, completion,
                            otherwise == default_length::sixteen ? "prompt" : "messages");
  if (fields.min_tokens > completion)
    return bad_value("min_tokens", fmt::format("it must not be above the completion's {} tokens, "
                                               "but got {}",
                                               completion, fields.min_tokens));
  serve::generation_request request = base;
  request.prompt = std::move(prompt);
  // Scoring (max_tokens 0) still needs one step; its token is not shown.
  request.stops.max_tokens = static_cast<int>(std::max<std::int64_t>(completion, 1));
  return request;
}

}  // namespace tandem::gateway::openai
