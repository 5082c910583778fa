#include "gateway/openai/routes.hpp"

#include "gateway/openai/endpoints.hpp"
#include "gateway/openai/request_fields.hpp"

#include <array>
#include <string_view>

namespace tandem::gateway {

namespace {

using openai::request_schema;
using openai::text_route;

// $refs lead into /openapi.json's components.
constexpr const char* chat_reply = R"({"$ref":"#/components/schemas/ChatCompletion"})";
constexpr const char* completion_reply = R"({"$ref":"#/components/schemas/Completion"})";
constexpr const char* model_reply = R"({"$ref":"#/components/schemas/Model"})";
constexpr const char* models_reply =
    R"({"type":"object","required":["object","data"],"properties":{"object":{"const":"list"},"data":{"type":"array","items":{"$ref":"#/components/schemas/Model"}}}})";
constexpr const char* tokenize_reply =
    R"({"type":"object","required":["count","max_model_len","tokens"],"properties":{"count":{"type":"integer"},"max_model_len":{"type":"integer"},"tokens":{"type":"array","items":{"type":"integer"}},"token_strs":{"type":["array","null"],"items":{"type":"string"}}}})";
constexpr const char* detokenize_reply =
    R"({"type":"object","required":["prompt"],"properties":{"prompt":{"type":"string"}}})";
constexpr const char* render_reply =
    R"({"type":"object","required":["text","count","tokens"],"properties":{"text":{"type":"string"},"count":{"type":"integer"},"tokens":{"type":"array","items":{"type":"integer"}}}})";

struct unfinished_route {
  std::string_view method;
  std::string_view path;
  std::string_view name;
};

constexpr auto unfinished = std::to_array<unfinished_route>({
    {"POST", "/v1/embeddings", "Embeddings"},
    {"POST", "/v1/responses", "The responses API"},
    {"GET", "/v1/responses/{rest...}", "The responses API"},
    {"POST", "/v1/responses/{rest...}", "The responses API"},
    {"DELETE", "/v1/responses/{rest...}", "The responses API"},
    {"GET", "/v1/files", "File storage"},
    {"POST", "/v1/files", "File storage"},
    {"GET", "/v1/files/{rest...}", "File storage"},
    {"DELETE", "/v1/files/{rest...}", "File storage"},
    {"GET", "/v1/fine_tuning/{rest...}", "Fine-tuning"},
    {"POST", "/v1/fine_tuning/{rest...}", "Fine-tuning"},
    {"GET", "/v1/batches", "The batch API"},
    {"POST", "/v1/batches", "The batch API"},
    {"GET", "/v1/batches/{rest...}", "The batch API"},
    {"POST", "/v1/batches/{rest...}", "The batch API"},
    {"POST", "/v1/messages", "The messages API"},
    {"POST", "/v1/messages/count_tokens", "The messages API"},
});

}  // namespace

void add_openai_routes(router& to, std::shared_ptr<engine> door, const settings& s) {
  const openai::endpoint_context context{std::move(door), s.server.heartbeat_ms,
                                         s.server.request_timeout_ms};
  to.add({"POST", "/v1/chat/completions", access::user,
          "Answers a conversation; streamed with \"stream\": true.",
          request_schema(text_route::chat), chat_reply, openai::chat_completions(context)});
  to.add({"POST", "/v1/completions", access::user,
          "Continues text or token ids; streamed with \"stream\": true.",
          request_schema(text_route::completions), completion_reply, openai::completions(context)});
  to.add({"GET", "/v1/models", access::user, "The models served here.", "", models_reply,
          openai::list_models(context)});
  to.add({"GET", "/v1/models/{id...}", access::user,
          "One model, its context length and its sampling defaults.", "", model_reply,
          openai::retrieve_model(context)});
  to.add({"POST", "/tokenize", access::user, "A prompt or a conversation as token ids.",
          request_schema(text_route::tokenize), tokenize_reply, openai::tokenize(context)});
  to.add({"POST", "/detokenize", access::user, "Token ids as text.",
          request_schema(text_route::detokenize), detokenize_reply, openai::detokenize(context)});
  to.add({"POST", "/render", access::user, "A conversation as the chat template prints it.",
          request_schema(text_route::render), render_reply, openai::render(context)});
  for (const unfinished_route& one : unfinished)
    to.add({std::string(one.method), std::string(one.path), access::user,
            std::string(one.name) + ": not built yet, answers 501.", "", "",
            openai::not_built_yet(one.name)});
}

}  // namespace tandem::gateway
