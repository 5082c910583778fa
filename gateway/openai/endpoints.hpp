// The handlers of the routes under /v1, one file an endpoint.
#pragma once

#include "gateway/engine.hpp"
#include "gateway/http.hpp"
#include "runtime/store/store.hpp"

#include <cstdint>
#include <memory>

namespace tandem::gateway::openai {

// What every endpoint needs.
struct endpoint_context {
  std::shared_ptr<engine> door;
  int heartbeat_ms = 5'000;
  int request_timeout_ms = 600'000;
  std::shared_ptr<store::store> store;  // null: files and jobs are not kept here
  std::int64_t file_bytes_max = 0;
};

class job_feed;

http_handler chat_completions(endpoint_context context);
http_handler completions(endpoint_context context);
http_handler list_models(endpoint_context context);
http_handler retrieve_model(endpoint_context context);
http_handler tokenize(endpoint_context context);
http_handler detokenize(endpoint_context context);
http_handler render(endpoint_context context);

// Those below need a store.
sink_opener file_upload(endpoint_context context);
http_handler create_file();  // with file_upload
http_handler list_files(endpoint_context context);
http_handler retrieve_file(endpoint_context context);
http_handler delete_file(endpoint_context context);
http_handler file_content(endpoint_context context);
http_handler create_job(endpoint_context context);
http_handler list_jobs(endpoint_context context);
http_handler retrieve_job(endpoint_context context);
http_handler cancel_job(endpoint_context context);
http_handler pause_job(endpoint_context context);
http_handler resume_job(endpoint_context context);
http_handler list_job_events(endpoint_context context, std::shared_ptr<job_feed> feed);
http_handler list_job_checkpoints(endpoint_context context);

// 501: a route of the published API that is not built yet.
http_handler not_built_yet(std::string_view name);

}  // namespace tandem::gateway::openai
