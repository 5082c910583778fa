#include "gateway/openai/routes.hpp"

#include "gateway/nodes/link_settings.hpp"
#include "gateway/openai/endpoints.hpp"
#include "gateway/openai/fine_tuning_feed.hpp"
#include "gateway/openai/fine_tuning_request.hpp"
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
    {"GET", "/v1/fine_tuning/{rest...}", "This part of fine-tuning"},
    {"POST", "/v1/fine_tuning/{rest...}", "This part of fine-tuning"},
    {"GET", "/v1/batches", "The batch API"},
    {"POST", "/v1/batches", "The batch API"},
    {"GET", "/v1/batches/{rest...}", "The batch API"},
    {"POST", "/v1/batches/{rest...}", "The batch API"},
    {"POST", "/v1/messages", "The messages API"},
    {"POST", "/v1/messages/count_tokens", "The messages API"},
});

constexpr const char* file_reply = R"({"$ref":"#/components/schemas/File"})";
constexpr const char* deleted_reply =
    R"({"type":"object","required":["id","object","deleted"],"properties":{"id":{"type":"string"},"object":{"const":"file"},"deleted":{"type":"boolean"}}})";
constexpr const char* file_form_schema =
    R"({"type":"object","required":["file","purpose"],"properties":{"file":{"type":"string","format":"binary"},"purpose":{"enum":["fine-tune","batch","assistants","vision","user_data","evals"]}}})";
constexpr const char* job_reply = R"({"$ref":"#/components/schemas/FineTuningJob"})";

std::string list_of(std::string_view shape) {
  return R"({"type":"object","required":["object","data","has_more"],"properties":{"object":{"const":"list"},"data":{"type":"array","items":{"$ref":"#/components/schemas/)" +
         std::string(shape) +
         R"("}},"has_more":{"type":"boolean"},"first_id":{"type":["string","null"]},"last_id":{"type":["string","null"]}}})";
}

// The parts of a form beside the file, its boundaries and headers.
constexpr std::int64_t form_bytes_max = 1 << 20;

// One that changes the store, and so waits for its disk.
route changing(route r) {
  r.waits = true;
  return r;
}

void add_file_routes(router& to, const openai::endpoint_context& context) {
  to.add({"GET", "/v1/files", access::user, "The files kept here, newest first.", "",
          list_of("File"), openai::list_files(context)});
  to.add({"POST", "/v1/files", access::user, "Uploads a file, streamed to disk.", file_form_schema,
          file_reply, openai::create_file(), "multipart/form-data", openai::file_upload(context),
          context.file_bytes_max + form_bytes_max});
  to.add({"GET", "/v1/files/{file_id}", access::user, "One file.", "", file_reply,
          openai::retrieve_file(context)});
  to.add(changing({"DELETE", "/v1/files/{file_id}", access::user,
                   "Deletes a file that no unfinished job needs.", "", deleted_reply,
                   openai::delete_file(context)}));
  to.add({"GET", "/v1/files/{file_id}/content", access::user, "A file's bytes.", "", "",
          openai::file_content(context)});
}

void add_job_routes(router& to, const openai::endpoint_context& context,
                    const std::shared_ptr<openai::job_feed>& feed) {
  to.add({"GET", "/v1/fine_tuning/jobs", access::user,
          "The fine-tuning jobs, newest first; metadata[key]=value chooses among them.", "",
          list_of("FineTuningJob"), openai::list_jobs(context)});
  to.add(changing({"POST", "/v1/fine_tuning/jobs", access::user, "Starts a fine-tuning job.",
                   openai::job_request_schema(), job_reply, openai::create_job(context)}));
  to.add({"GET", "/v1/fine_tuning/jobs/{job_id}", access::user, "One job.", "", job_reply,
          openai::retrieve_job(context)});
  to.add(
      changing({"POST", "/v1/fine_tuning/jobs/{job_id}/cancel", access::user,
                "Ends a job; its checkpoints stay.", "", job_reply, openai::cancel_job(context)}));
  to.add(
      changing({"POST", "/v1/fine_tuning/jobs/{job_id}/pause", access::user,
                "Stops a job so that it can go on.", "", job_reply, openai::pause_job(context)}));
  to.add(changing({"POST", "/v1/fine_tuning/jobs/{job_id}/resume", access::user,
                   "Lets a paused job go on.", "", job_reply, openai::resume_job(context)}));
  to.add({"GET", "/v1/fine_tuning/jobs/{job_id}/events", access::user,
          "A job's events, newest first; with stream=true all of them, live, until it ends.", "",
          list_of("FineTuningEvent"), openai::list_job_events(context, feed)});
  to.add({"GET", "/v1/fine_tuning/jobs/{job_id}/checkpoints", access::user,
          "A job's checkpoints, newest first.", "", list_of("FineTuningCheckpoint"),
          openai::list_job_checkpoints(context)});
}

// Without a store: the paths are there, and say so.
constexpr auto stored = std::to_array<unfinished_route>({
    {"GET", "/v1/files", "Without a store, this"},
    {"POST", "/v1/files", "Without a store, this"},
    {"GET", "/v1/files/{rest...}", "Without a store, this"},
    {"DELETE", "/v1/files/{rest...}", "Without a store, this"},
});

template <class Routes>
void add_unfinished(router& to, const Routes& all) {
  for (const unfinished_route& one : all)
    to.add({std::string(one.method), std::string(one.path), access::user,
            std::string(one.name) + ": not built yet, answers 501.", "", "",
            openai::not_built_yet(one.name)});
}

openai::endpoint_context context_of(std::shared_ptr<engine> door, const settings& s,
                                    std::shared_ptr<store::store> files) {
  return {std::move(door), s.server.heartbeat_ms, s.server.request_timeout_ms, std::move(files),
          s.server.max_file_bytes};
}

}  // namespace

void add_text_routes(router& to, std::shared_ptr<engine> door, const settings& s) {
  const auto context = context_of(std::move(door), s, nullptr);
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
}

std::function<void()> add_openai_routes(router& to, std::shared_ptr<engine> door, const settings& s,
                                        std::shared_ptr<store::store> files) {
  const auto context = context_of(door, s, std::move(files));
  add_text_routes(to, std::move(door), s);
  add_unfinished(to, unfinished);
  if (!context.store) {
    add_unfinished(to, stored);
    return [] {};
  }
  const auto feed = std::make_shared<openai::job_feed>(context.store);
  add_file_routes(to, context);
  add_job_routes(to, context, feed);
  return [feed] { feed->close(); };
}

}  // namespace tandem::gateway
