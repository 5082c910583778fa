// GET /v1/models and /v1/models/{id...}: OpenAI's object, and beside it what a client needs to know
// to use the model well.
#include "gateway/json_writer.hpp"
#include "gateway/openai/endpoint.hpp"
#include "gateway/openai/generation.hpp"

namespace tandem::gateway::openai {

namespace {

void append_defaults(std::string& out, const model::generation_defaults& own) {
  out += R"({"temperature":)";
  append_number(out, own.temperature.value_or(1.0F));
  out += R"(,"top_p":)";
  append_number(out, own.top_p.value_or(1.0F));
  out += R"(,"top_k":)";
  append_number(out, std::int64_t{own.top_k.value_or(0)});
  out += R"(,"min_p":)";
  append_number(out, own.min_p.value_or(0.0F));
  out += R"(,"repetition_penalty":)";
  append_number(out, own.repetition_penalty.value_or(1.0F));
  out += '}';
}

void append_flag(std::string& out, std::string_view name, bool value) {
  out += ",\"";
  out += name;
  out += value ? "\":true" : "\":false";
}

void append_model(std::string& out, const served_model& model) {
  const auto number = [&](std::string_view name, std::int64_t value) {
    out += ",\"";
    out += name;
    out += "\":";
    append_number(out, value);
  };
  out += R"({"id":)";
  append_json_string(out, model.id);
  out += R"(,"object":"model")";
  number("created", model.created);
  out += R"(,"owned_by":"tandem","root":)";
  append_json_string(out, model.parent.empty() ? model.id : model.parent);
  out += R"(,"parent":)";
  if (model.parent.empty())
    out += "null";
  else
    append_json_string(out, model.parent);
  if (!model.job.empty()) {
    out += R"(,"fine_tuning_job":)";
    append_json_string(out, model.job);
  }
  number("context_length", model.context_length);
  number("max_model_len", model.context_length);
  number("vocabulary_size", model.vocabulary_size);
  number("parameter_count", model.parameter_count);
  out += R"(,"family":)";
  append_json_string(out, model.family);
  out += R"(,"precision":)";
  append_json_string(out, model.precision);
  number("weights_version", static_cast<std::int64_t>(model.weights_version));
  append_flag(out, "chat", model.tokenizer != nullptr && model.chat_template != nullptr);
  append_flag(out, "tokenizer", model.tokenizer != nullptr);
  out += R"(,"sampling_defaults":)";
  append_defaults(out, model.defaults);
  out += '}';
}

}  // namespace

http_handler list_models(endpoint_context context) {
  return answering(
      [context = std::move(context)](const http_request&, const std::shared_ptr<responder>& to) {
        http_response response;
        response.body = R"({"object":"list","data":[)";
        bool first = true;
        for (const auto& model : context.door->models()) {
          if (!first) response.body += ',';
          first = false;
          append_model(response.body, *model);
        }
        response.body += "]}";
        to->send(std::move(response));
        return result<void>();
      });
}

http_handler retrieve_model(endpoint_context context) {
  return answering([context = std::move(context)](const http_request& request,
                                                  const std::shared_ptr<responder>& to) {
    ensure(request.path_parameters.size() == 1, "the route of a model names one");
    const auto model = find_model(*context.door, request.path_parameters.front());
    if (!model) return result<void>(model.error());
    http_response response;
    append_model(response.body, **model);
    to->send(std::move(response));
    return result<void>();
  });
}

}  // namespace tandem::gateway::openai
