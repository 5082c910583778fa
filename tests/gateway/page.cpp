// Probes, version, metrics, the cluster's state and the page.
#include "tests/support/gateway_world.hpp"

using namespace tandem;
using namespace tandem::test;

TEST_CASE("a ready server is alive and ready") {
  gateway_world world;
  for (const std::string path : {"/health", "/health/ready", "/health/live"}) {
    const auto to = world.call("GET", path);
    CHECK(to->status == 200);
    CHECK(text_at(json(to->body), "status") == "ready");
  }
}

TEST_CASE("a server that starts or drains is alive but not ready, and says why") {
  gateway_world world;
  for (const auto state : {gateway::readiness::starting, gateway::readiness::draining}) {
    world.engine->now = state;
    CHECK(world.call("GET", "/health/live")->status == 200);
    const auto to = world.call("GET", "/health");
    CHECK(to->status == 503);
    CHECK(to->header("retry-after") == "1");
    CHECK(text_at(json(to->body), "reason") == "loading weights");
  }
}

TEST_CASE("a failed engine is not worth keeping") {
  gateway_world world;
  world.engine->now = gateway::readiness::failed;
  CHECK(world.call("GET", "/health/live")->status == 503);
  CHECK(world.call("GET", "/health/ready")->status == 503);
}

TEST_CASE("metrics are the engine's and the server's as Prometheus text") {
  gateway_world world;
  const auto to = world.call("GET", "/metrics");
  CHECK(to->content_type.rfind("text/plain; version=0.0.4", 0) == 0);
  CHECK(to->body == "tandem_requests_inside 0\ntandem_http_connections 0\n");
}

TEST_CASE("the version is told") {
  gateway_world world;
  CHECK_THAT(text_at(json(world.call("GET", "/version")->body), "version"),
             Catch::Matches("[0-9]+\\.[0-9]+\\.[0-9]+"));
}

TEST_CASE("the cluster's state and the settings are for administrators") {
  gateway_world world;
  CHECK(world.call("GET", "/admin/cluster")->body == world.engine->status_json());
  const auto settings = json(world.call("GET", "/admin/settings")->body);
  CHECK_FALSE(settings.if_array()->empty());
  for (const auto& route : world.routes.routes())
    if (route.path.rfind("/admin/", 0) == 0) CHECK(route.needs == gateway::access::admin);
}

TEST_CASE("only probes, documents and the page itself need no key") {
  gateway_world world;
  for (const auto& route : world.routes.routes()) {
    INFO(route.path);
    const bool text_route = route.path.rfind("/v1/", 0) == 0 || route.path == "/tokenize" ||
                            route.path == "/detokenize" || route.path == "/render";
    if (text_route) CHECK(route.needs == gateway::access::user);
  }
}

TEST_CASE("the page is one document that loads nothing from elsewhere") {
  gateway_world world;
  const auto to = world.call("GET", "/");
  CHECK(to->status == 200);
  CHECK(to->content_type == "text/html; charset=utf-8");
  CHECK(to->body.rfind("<!doctype html>", 0) == 0);
  for (const std::string outside : {"src=\"http", "href=\"http", "src=\"//", "@import", "url(http"})
    CHECK(to->body.find(outside) == std::string::npos);
  CHECK(to->body.find("<script src") == std::string::npos);
  CHECK(to->body.find("Chart.js v3") != std::string::npos);
  CHECK(to->body.substr(to->body.size() - 8) == "</html>\n");
  // Model output is untrusted: it goes in as text.
  CHECK(to->body.find("innerHTML") == std::string::npos);
}

TEST_CASE("no script runs on the page but its own, named by their hashes") {
  gateway_world world;
  const auto to = world.call("GET", "/");
  const std::string policy(to->header("content-security-policy"));
  CHECK_THAT(policy, Catch::Contains("default-src 'none'"));
  const std::size_t from = policy.find("script-src");
  REQUIRE(from != std::string::npos);
  const std::string scripts = policy.substr(from, policy.find(';', from) - from);
  std::size_t hashes = 0;
  for (std::size_t at = 0; (at = scripts.find("'sha256-", at)) != std::string::npos; ++at) ++hashes;
  CHECK(hashes == 4);
  for (const std::string wide : {"unsafe", "self", "*", "http"})
    CHECK(scripts.find(wide) == std::string::npos);
}
