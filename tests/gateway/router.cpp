#include "gateway/http.hpp"
#include "server_client.hpp"

#include <catch2/catch.hpp>

using namespace tandem::gateway;
using tandem::gateway::testing::make_route;

namespace {

router models_routes() {
  const http_handler nothing = [](const auto&, const auto&) {};
  router routes;
  routes.add(make_route("GET", "/v1/models/{id...}", nothing));
  routes.add(make_route("DELETE", "/v1/models/{id...}", nothing));
  routes.add(make_route("GET", "/v1/models", nothing));
  routes.add(make_route("GET", "/v1/jobs/{id}/events", nothing));
  routes.add(make_route("GET", "/v1/jobs/{id}", nothing));
  routes.add(make_route("GET", "/v1/jobs/mine", nothing));
  routes.add(make_route("POST", "/v1/jobs/{id}/cancel", nothing));
  routes.add(make_route("GET", "/", nothing));
  return routes;
}

std::string found_path(const router::match& match) {
  return match.found == nullptr ? "none" : match.found->path;
}

using words = std::vector<std::string>;

}  // namespace

TEST_CASE("a route is found by its method and its whole path") {
  const router routes = models_routes();
  CHECK(found_path(routes.find("GET", "/")) == "/");
  CHECK(found_path(routes.find("GET", "/v1/models")) == "/v1/models");
  for (const char* path : {"/v1/model", "/v1/models/", "/v1", "/v1/modelsx", "//v1/models", "", "*",
                           "/v1/jobs/", "/v1/jobs/x/", "/v1/jobs/x/events/1"}) {
    INFO(path);
    CHECK(found_path(routes.find("GET", path)) == "none");
    CHECK(routes.find("GET", path).allowed.empty());
  }
}

TEST_CASE("{name} stands for one segment and {name...} for the rest, slashes included") {
  const router routes = models_routes();
  CHECK(routes.find("GET", "/v1/jobs/ft-1/events").path_parameters == words{"ft-1"});
  CHECK(routes.find("GET", "/v1/models/org/model:tag").path_parameters == words{"org/model:tag"});
  CHECK(routes.find("GET", "/v1/models/m").path_parameters == words{"m"});
}

TEST_CASE("a literal path wins over one with parameters") {
  const router routes = models_routes();
  CHECK(found_path(routes.find("GET", "/v1/jobs/mine")) == "/v1/jobs/mine");
  CHECK(found_path(routes.find("GET", "/v1/jobs/other")) == "/v1/jobs/{id}");
}

TEST_CASE("with the wrong method the right ones are told") {
  const router routes = models_routes();
  CHECK(routes.find("POST", "/v1/models/a/b").allowed == words{"GET", "DELETE", "HEAD", "OPTIONS"});
  CHECK(routes.find("GET", "/v1/jobs/x/cancel").allowed == words{"POST", "OPTIONS"});
}

TEST_CASE("a query's parameters are decoded, and missing ones are empty") {
  http_request request;
  request.query = "limit=20&after=a%2Fb+c&flag&bad=%zz";
  CHECK(request.query_parameter("limit") == "20");
  CHECK(request.query_parameter("after") == "a/b c");
  CHECK(request.query_parameter("flag").empty());
  CHECK(request.query_parameter("bad").empty());
  CHECK(request.query_parameter("lim").empty());
}
