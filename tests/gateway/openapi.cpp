// /openapi.json is made of the routes and of the table that reads requests.
#include "tests/support/gateway_world.hpp"

using namespace tandem;
using namespace tandem::test;

TEST_CASE("the document names every route with its method") {
  gateway_world world;
  const auto to = world.call("GET", "/openapi.json");
  const auto body = json(to->body);
  CHECK(text_at(body, "openapi") == "3.1.0");
  for (const auto& route : world.routes.routes()) {
    std::string path = route.path;
    if (const auto dots = path.find("...}"); dots != std::string::npos) path.erase(dots, 3);
    const auto* described = at(body, "paths").find(path);
    INFO(route.method << " " << route.path);
    REQUIRE(described != nullptr);
    std::string method = route.method;
    for (char& c : method) c = static_cast<char>(c | 0x20);
    REQUIRE(described->find(method) != nullptr);
    CHECK_FALSE(text_at(*described, method + ".summary").empty());
  }
}

TEST_CASE("the document describes the fields that are read") {
  gateway_world world;
  const auto body = json(world.call("GET", "/openapi.json")->body);
  const auto& chat = *at(body, "paths").find("/v1/chat/completions");
  const auto& schema =
      at(chat, "post.requestBody.content").find("application/json")->find("schema");
  REQUIRE(schema != nullptr);
  for (const std::string field : {"messages", "temperature", "top_k", "logit_bias", "tools"})
    CHECK(at(*schema, "properties").find(field) != nullptr);
  CHECK(number_at(*schema, "properties.temperature.maximum") == 2);
}

TEST_CASE("what a bound in the document says is what the parser does") {
  gateway_world world;
  const auto body = json(world.call("GET", "/openapi.json")->body);
  const auto& chat = *at(body, "paths").find("/v1/chat/completions");
  const auto& fields = at(
      *at(chat, "post.requestBody.content").find("application/json")->find("schema"), "properties");
  int checked = 0;
  for (const auto& [name, schema] : *fields.if_object()) {
    const auto* maximum = schema.find("maximum");
    if (maximum == nullptr) continue;
    ++checked;
    const std::int64_t most = *maximum->if_int();
    const std::string together = name == "top_logprobs" ? R"(,"logprobs":true)" : "";
    const auto with = [&](std::int64_t value) {
      return world.chat(together + ",\"" + name + "\":" + std::to_string(value));
    };
    INFO(name);
    if (name != "best_of") CHECK(with(most)->status == 0);
    check_refused(*with(most + 1), 400, name, "above maximum");
  }
  CHECK(checked >= 8);
}

TEST_CASE("references in the document lead somewhere") {
  gateway_world world;
  const auto text = world.call("GET", "/openapi.json")->body;
  const auto body = json(text);
  const std::string mark = R"("$ref":"#/components/schemas/)";
  for (auto from = text.find(mark); from != std::string::npos; from = text.find(mark, from + 1)) {
    const auto begin = from + mark.size();
    const auto name = text.substr(begin, text.find('"', begin) - begin);
    INFO(name);
    CHECK(at(body, "components.schemas").find(name) != nullptr);
  }
}
