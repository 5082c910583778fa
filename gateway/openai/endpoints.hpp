// The handlers of the text routes, one file an endpoint.
#pragma once

#include "gateway/engine.hpp"
#include "gateway/http.hpp"

#include <memory>

namespace tandem::gateway::openai {

// What every endpoint needs.
struct endpoint_context {
  std::shared_ptr<engine> door;
  int heartbeat_ms = 5'000;
  int request_timeout_ms = 600'000;
};

http_handler chat_completions(endpoint_context context);
http_handler completions(endpoint_context context);
http_handler list_models(endpoint_context context);
http_handler retrieve_model(endpoint_context context);
http_handler tokenize(endpoint_context context);
http_handler detokenize(endpoint_context context);
http_handler render(endpoint_context context);
// 501: a route of the published API that is not built yet.
http_handler not_built_yet(std::string_view name);

}  // namespace tandem::gateway::openai
