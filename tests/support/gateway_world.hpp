// A gateway without sockets: a fake engine behind the real routes, with a model whose tokens are
// bytes, so that every number in an answer can be counted by hand.
#pragma once

#include "gateway/leases/routes.hpp"
#include "gateway/openai/routes.hpp"
#include "gateway/pages/routes.hpp"
#include "runtime/text/value.hpp"
#include "tests/support/byte_model.hpp"
#include "tests/support/fake_engine.hpp"
#include "tests/support/fake_responder.hpp"
#include "tests/support/lease_world.hpp"

#include <catch2/catch.hpp>

#include <charconv>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::test {

// "choices.0.message.content" in a JSON value; REQUIREs that it is there.
inline const text::value& at(const text::value& root, std::string_view path) {
  const text::value* here = &root;
  INFO("path " << path << " in " << root.to_json());
  while (!path.empty()) {
    const std::string_view step = path.substr(0, path.find('.'));
    path.remove_prefix(std::min(path.size(), step.size() + 1));
    if (const auto* list = here->if_array()) {
      std::size_t index = 0;
      std::from_chars(step.data(), step.data() + step.size(), index);
      REQUIRE(index < list->size());
      here = &(*list)[index];
    } else {
      here = here->find(step);
      REQUIRE(here != nullptr);
    }
  }
  return *here;
}
inline std::string text_at(const text::value& root, std::string_view path) {
  const std::string* found = at(root, path).if_string();
  INFO("path " << path << " in " << root.to_json());
  REQUIRE(found != nullptr);
  return *found;
}
inline std::int64_t number_at(const text::value& root, std::string_view path) {
  const std::int64_t* found = at(root, path).if_int();
  INFO("path " << path << " in " << root.to_json());
  REQUIRE(found != nullptr);
  return *found;
}

inline text::value json(const std::string& body) {
  INFO("body " << body);
  auto parsed = text::value::from_json(body);
  REQUIRE(parsed);
  return std::move(*parsed);
}

// The frames of an event stream; checks that each is `data: …` and a blank line, or a comment.
inline std::vector<std::string> frames(const std::string& stream) {
  std::vector<std::string> found;
  for (std::size_t from = 0; from < stream.size();) {
    const std::size_t end = stream.find("\n\n", from);
    REQUIRE(end != std::string::npos);
    const std::string frame = stream.substr(from, end - from);
    from = end + 2;
    if (frame.front() == ':') continue;
    INFO("frame " << frame);
    REQUIRE(frame.rfind("data: ", 0) == 0);
    found.push_back(frame.substr(6));
  }
  return found;
}

struct gateway_world {
  std::shared_ptr<fake_engine> engine = std::make_shared<fake_engine>();
  std::shared_ptr<actors::lease_board> leases = std::make_shared<actors::lease_board>();
  std::shared_ptr<fake_lease_control> control = std::make_shared<fake_lease_control>();
  gateway::router routes;
  std::function<void()> end_streams;
  std::function<void()> end_lease_streams;

  explicit gateway_world(std::shared_ptr<store::store> files = nullptr, const settings& s = {}) {
    engine->served = {byte_model(), wordless_model()};
    end_streams = gateway::add_openai_routes(routes, engine, s, std::move(files));
    end_lease_streams = gateway::add_lease_routes(routes, leases, control);
    gateway::add_page_routes(routes, engine, s, [] { return "tandem_http_connections 0\n"; });
  }

  ~gateway_world() { engine->requests.clear(); }  // their sinks hold the engine

  // `target` may have a query.
  std::shared_ptr<fake_responder> call(const std::string& method, const std::string& target,
                                       const std::string& body = {},
                                       gateway::header_list headers = {}) {
    const std::string path = target.substr(0, target.find('?'));
    auto request = std::make_shared<gateway::http_request>();
    request->method = method;
    request->path = path;
    if (path.size() < target.size()) request->query = target.substr(path.size() + 1);
    request->headers = std::move(headers);
    request->body.reserve(body.size() + 64);
    request->body = body;
    const auto match = routes.find(method, path);
    INFO(method << " " << path);
    REQUIRE(match.found != nullptr);
    request->path_parameters = match.path_parameters;
    auto to = std::make_shared<fake_responder>();
    match.found->handler(request, to);
    return to;
  }
  std::shared_ptr<fake_responder> post(const std::string& path, const std::string& body) {
    return call("POST", path, body);
  }
  // With the model and a short conversation; `more` are further fields, with a comma before each.
  std::shared_ptr<fake_responder> chat(const std::string& more = {}) {
    return post("/v1/chat/completions",
                R"({"model":"bytes","messages":[{"role":"user","content":"Hi"}])" + more + "}");
  }
  std::shared_ptr<fake_responder> complete(const std::string& more = {}) {
    return post("/v1/completions", R"({"model":"bytes","prompt":"Hi")" + more + "}");
  }
  // The request at its side of the engine.
  const serve::generation_request& asked(std::size_t index = 0) const {
    REQUIRE(index < engine->requests.size());
    return engine->requests[index].request;
  }
  std::string prompt_text(std::size_t index = 0) const {
    return byte_model()->tokenizer->decode(asked(index).prompt, false);
  }
};

// The answer is a refusal with OpenAI's body.
inline void check_refused(const fake_responder& to, int status, const std::string& param,
                          const std::string& part_of_message) {
  INFO(to.body);
  CHECK(to.status == status);
  REQUIRE(to.ended);
  const text::value body = json(to.body);
  const text::value& error = at(body, "error");
  CHECK_THAT(text_at(error, "message"), Catch::Contains(part_of_message));
  CHECK_FALSE(text_at(error, "type").empty());
  CHECK((at(error, "code").is_null() || at(error, "code").if_string() != nullptr));
  if (param.empty())
    CHECK(at(error, "param").is_null());
  else
    CHECK(text_at(error, "param") == param);
}

}  // namespace tandem::test
