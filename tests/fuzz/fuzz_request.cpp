// The JSON bodies of every POST route, with an engine that answers at once: whatever comes in, one
// answer goes out, it is JSON (or a stream of it), and a bad request is never a 500.
#include "gateway/openai/routes.hpp"
#include "gateway/pages/routes.hpp"
#include "tests/support/byte_model.hpp"
#include "tests/support/fake_engine.hpp"
#include "tests/support/fake_responder.hpp"

#include <simdjson.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

using namespace tandem;

namespace {

// A new one for every input: a fake engine remembers its requests.
struct world {
  std::shared_ptr<test::fake_engine> engine = std::make_shared<test::fake_engine>();
  gateway::router routes;

  world() {
    engine->served = {test::byte_model(), test::wordless_model()};
    engine->answer = "An \"answer\".";
    gateway::add_openai_routes(routes, engine, settings{});
  }
  ~world() { engine->requests.clear(); }  // their sinks hold the engine
};

void check_json(std::string_view text) {
  static simdjson::dom::parser parser;
  ensure(parser.parse(text.data(), text.size()).error() == simdjson::SUCCESS, "an answer is JSON");
}

void check_stream(std::string_view text) {
  constexpr std::string_view mark = "data: ";
  while (!text.empty()) {
    const std::size_t end = text.find("\n\n");
    ensure(end != std::string_view::npos && text.substr(0, mark.size()) == mark, "whole frames");
    const std::string_view frame = text.substr(mark.size(), end - mark.size());
    if (frame != "[DONE]") check_json(frame);
    text.remove_prefix(end + 2);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::vector<std::string> paths = {"/v1/chat/completions", "/v1/completions",
                                                 "/tokenize", "/detokenize", "/render"};
  if (size == 0) return 0;
  world here;
  auto request = std::make_shared<gateway::http_request>();
  request->method = "POST";
  request->path = paths[data[0] % paths.size()];
  request->body.reserve(size + simdjson::SIMDJSON_PADDING);
  for (std::size_t i = 1; i < size; ++i) request->body += static_cast<char>(data[i]);
  const auto found = here.routes.find("POST", request->path).found;
  ensure(found != nullptr, "the route is there");
  const auto to = std::make_shared<test::fake_responder>();
  found->handler(request, to);
  ensure(to->ended, "every request is answered");
  ensure(to->status < 500, "no body is the server's fault");
  if (to->streamed)
    check_stream(to->body);
  else
    check_json(to->body);
  return 0;
}
