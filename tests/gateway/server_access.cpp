// Keys, the admin plane, and pages of other sites.
#include "server_client.hpp"

#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>

using namespace tandem::gateway;
using namespace tandem::gateway::testing;
using Catch::Contains;
using tandem::errc;

namespace {

// A file of the test's own, gone afterwards.
class scratch_file {
 public:
  scratch_file(const std::string& name, const std::string& content)
      : path_(std::filesystem::temp_directory_path() /
              ("tandem_test_" + std::to_string(::getpid()) + "_" + name)) {
    write(content);
  }
  ~scratch_file() { std::filesystem::remove(path_); }
  scratch_file(const scratch_file&) = delete;
  scratch_file& operator=(const scratch_file&) = delete;

  void write(const std::string& content) const { std::ofstream(path_) << content; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

std::shared_ptr<router> guarded_routes() {
  auto routes = basic_routes();
  const http_handler yes = [](const auto&, const auto& to) { to->send(text("yes")); };
  routes->add(make_route("GET", "/user", yes, access::user));
  routes->add(make_route("POST", "/user", yes, access::user));
  routes->add(make_route("GET", "/admin", yes, access::admin));
  return routes;
}

int status_of(client& one, std::string_view path, std::string_view headers = {}) {
  one.send(get(path, headers));
  return one.read_response().status;
}

std::string bearer(std::string_view key) {
  return "authorization: Bearer " + std::string(key) + "\r\n";
}

}  // namespace

TEST_CASE("without key files users need no key") {
  const auto running = started(any_port(), guarded_routes());
  client one(running->port());
  CHECK(status_of(one, "/user") == 200);
  CHECK(status_of(one, "/admin") == 200);  // we sit at this machine
}

TEST_CASE("a key of the file opens, by either header; none or a wrong one is 401") {
  const scratch_file keys("keys", "# of the team\n\n  sk-one  \nsk-two\r\n");
  server_settings settings = any_port();
  settings.api_keys_file = keys.path();
  const auto running = started(settings, guarded_routes());
  client one(running->port());
  CHECK(status_of(one, "/user", bearer("sk-one")) == 200);
  CHECK(status_of(one, "/user", "Authorization: bearer   sk-two\r\n") == 200);
  CHECK(status_of(one, "/user", "x-api-key: sk-two\r\n") == 200);
  for (const std::string& headers :
       {std::string(), bearer("sk-three"), bearer("sk-on"), bearer("# of the team"), bearer(""),
        std::string("authorization: Basic sk-one\r\n"), std::string("x-api-key: \r\n")}) {
    INFO(headers);
    CHECK(status_of(one, "/user", headers) == 401);
  }
  CHECK(status_of(one, "/hello") == 200);  // open to all

  one.send(get("/user"));
  const client_response response = one.read_response();
  CHECK_THAT(response.body, Contains(R"("code":"invalid_api_key")"));
  CHECK_THAT(response.body, Contains("You didn't provide an API key"));
}

TEST_CASE("a request without a key is refused before its large body is read") {
  const scratch_file keys("keys", "sk-one\n");
  server_settings settings = any_port();
  settings.api_keys_file = keys.path();
  const auto running = started(settings, guarded_routes());
  client one(running->port());
  one.send("POST /user HTTP/1.1\r\nhost: x\r\ncontent-length: 5000000\r\n\r\n");
  CHECK(one.read_response().status == 401);
}

TEST_CASE("keys added to the file and taken from it count within a moment") {
  const scratch_file keys("keys", "sk-one\n");
  server_settings settings = any_port();
  settings.api_keys_file = keys.path();
  const auto running = started(settings, guarded_routes());
  client one(running->port());
  CHECK(status_of(one, "/user", bearer("sk-two")) == 401);
  keys.write("sk-two\n");
  // The file system's clock may be too coarse to tell the two writes apart.
  std::filesystem::last_write_time(keys.path(), std::filesystem::last_write_time(keys.path()) + 1s);
  CHECK(eventually([&] { return status_of(one, "/user", bearer("sk-two")) == 200; }));
  CHECK(status_of(one, "/user", bearer("sk-one")) == 401);
}

TEST_CASE("the admin plane needs the admin key, which opens everything") {
  const scratch_file keys("keys", "sk-user\n");
  const scratch_file admin("admin", "sk-admin\n");
  server_settings settings = any_port();
  settings.api_keys_file = keys.path();
  settings.admin_key_file = admin.path();
  const auto running = started(settings, guarded_routes());
  client one(running->port());
  CHECK(status_of(one, "/admin") == 401);
  CHECK(status_of(one, "/admin", bearer("sk-user")) == 403);
  CHECK(status_of(one, "/admin", bearer("sk-admin")) == 200);
  CHECK(status_of(one, "/user", bearer("sk-admin")) == 200);
}

TEST_CASE("without an admin key a page of another site cannot reach the admin plane") {
  const auto running = started(any_port(), guarded_routes());
  client one(running->port());
  one.send("GET /admin HTTP/1.1\r\nhost: evil.example\r\n\r\n");  // a name pointed at 127.0.0.1
  CHECK(one.read_response().status == 403);
  CHECK(status_of(one, "/admin", "origin: https://evil.example\r\n") == 403);
  CHECK(status_of(one, "/admin", "origin: null\r\n") == 403);
  CHECK(status_of(one, "/admin", "origin: http://localhost\r\n") == 200);
}

TEST_CASE("listening beyond loopback without an admin key is refused, and says what to do") {
  server_settings settings = any_port();
  settings.host = "0.0.0.0";
  const auto refused = server::create(settings, basic_routes());
  REQUIRE(!refused);
  CHECK(refused.error().code == errc::forbidden);
  CHECK(refused.error().param == "server.admin_key_file");
  CHECK_THAT(refused.error().detail, Contains("server.admin_key_file"));

  const scratch_file admin("admin", "sk-admin\n");
  settings.admin_key_file = admin.path();
  const auto running = started(settings, guarded_routes());
  client one(running->port());
  CHECK(status_of(one, "/hello") == 200);
}

TEST_CASE("a key file that is missing or empty is an error at the start") {
  server_settings settings = any_port();
  settings.api_keys_file = "/nowhere/keys";
  const auto missing = server::create(settings, basic_routes());
  REQUIRE(!missing);
  CHECK(missing.error().param == "server.api_keys_file");
  CHECK_THAT(missing.error().detail, Contains("/nowhere/keys"));

  const scratch_file empty("empty", "# nobody yet\n");
  settings.api_keys_file = empty.path();
  const auto nobody = server::create(settings, basic_routes());
  REQUIRE(!nobody);
  CHECK_THAT(nobody.error().detail, Contains("holds no key"));
}

TEST_CASE("a browser's preflight is granted without a key") {
  const scratch_file keys("keys", "sk-one\n");
  server_settings settings = any_port();
  settings.api_keys_file = keys.path();
  const auto running = started(settings, guarded_routes());
  client one(running->port());
  one.send(
      "OPTIONS /user HTTP/1.1\r\nhost: x\r\norigin: https://app.example\r\n"
      "access-control-request-method: POST\r\n"
      "access-control-request-headers: authorization, x-stainless-lang\r\n\r\n");
  const client_response response = one.read_response();
  CHECK(response.status == 204);
  CHECK(response.headers.at("access-control-allow-origin") == "*");
  CHECK_THAT(response.headers.at("access-control-allow-methods"), Contains("POST"));
  CHECK_THAT(response.headers.at("access-control-allow-headers"), Contains("x-stainless-lang"));

  one.send(get("/user", "origin: https://app.example\r\n"));
  const client_response refused = one.read_response();
  CHECK(refused.status == 401);  // readable by the page all the same
  CHECK(refused.headers.at("access-control-allow-origin") == "*");
  CHECK_THAT(refused.headers.at("access-control-expose-headers"), Contains("x-request-id"));
}

TEST_CASE("only the listed origins are let in when there is a list") {
  server_settings settings = any_port();
  settings.cors_origins = {"https://app.example"};
  const auto running = started(settings, guarded_routes());
  client one(running->port());
  one.send(get("/hello", "origin: https://app.example\r\n"));
  client_response response = one.read_response();
  CHECK(response.headers.at("access-control-allow-origin") == "https://app.example");
  CHECK(response.headers.at("vary") == "origin");
  one.send(get("/hello", "origin: https://evil.example\r\n"));
  CHECK(one.read_response().headers.count("access-control-allow-origin") == 0);
  one.send(get("/hello"));
  CHECK(one.read_response().headers.count("access-control-allow-origin") == 0);
}
