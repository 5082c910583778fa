// Requests that a node's door passes on to the head: two real servers in one process.
#include "gateway/pass_through.hpp"

#include "server_client.hpp"

#include <catch2/catch.hpp>

#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

using namespace tandem;
using namespace tandem::gateway;
using namespace tandem::gateway::testing;
using Catch::Contains;

namespace {

// What the head was asked last, and what it does with a stream.
struct head_record {
  std::mutex mutex;
  http_request asked;
  std::string uploaded;
  std::shared_ptr<responder> stream;
  promised<bool> stream_left;

  void note(const http_request& request) {
    const std::lock_guard lock(mutex);
    asked = request;
  }
  std::string header(std::string_view name) {
    const std::lock_guard lock(mutex);
    return std::string(asked.header(name));
  }
};

class gathering_sink final : public body_sink {
 public:
  explicit gathering_sink(std::shared_ptr<head_record> to) : to_(std::move(to)) {}
  result<void> write(std::string_view bytes) override {
    const std::lock_guard lock(to_->mutex);
    to_->uploaded += bytes;
    return {};
  }
  result<void> finish() override { return {}; }

 private:
  const std::shared_ptr<head_record> to_;
};

struct two_servers {
  std::shared_ptr<head_record> record = std::make_shared<head_record>();
  std::unique_ptr<server> head;
  std::shared_ptr<pass_through> through = pass_through::start(5s);
  std::unique_ptr<server> door;

  two_servers() {
    auto routes = std::make_shared<router>();
    routes->add(make_route("POST", "/v1/echo", [r = record](const auto& request, const auto& to) {
      r->note(*request);
      http_response response;
      response.status = 201;
      response.headers.emplace_back("x-of-the-head", "yes");
      response.body = request->path + "?" + request->query + " " + request->body;
      to->send(std::move(response));
    }));
    routes->add(
        make_route("GET", "/v1/files/{id...}", [r = record](const auto& request, const auto& to) {
          r->note(*request);
          to->send(text(request->path));
        }));
    routes->add(make_route("GET", "/v1/large", [](const auto&, const auto& to) {
      to->send(text(std::string(5 << 20, 'l')));
    }));
    routes->add(make_route("GET", "/v1/live", [r = record](const auto&, const auto& to) {
      to->on_gone([r] { r->stream_left.set(true); });
      to->begin(200, "text/event-stream", {});
      to->write("data: one\n\n");
      const std::lock_guard lock(r->mutex);
      r->stream = to;
    }));
    auto up = make_route("POST", "/v1/up", [r = record](const auto&, const auto& to) {
      to->send(text(std::to_string(r->uploaded.size())));
    });
    up.open_sink = [r = record](const http_request& request) -> result<std::shared_ptr<body_sink>> {
      if (!request.header("x-refuse").empty())
        return error{errc::too_large, "a file has up to 3 bytes here", "file"};
      return std::shared_ptr<body_sink>(std::make_shared<gathering_sink>(r));
    };
    up.body_bytes_max = 64 << 20;
    routes->add(up);
    head = started(any_port(), routes);

    auto passed = std::make_shared<router>();
    for (const char* method : {"GET", "POST"})
      passed->add(make_route(method, "/v1/{rest...}", pass_through::handler(through)));
    auto upload = make_route("POST", "/v1/up", pass_through::handler(through));
    upload.open_sink = pass_through::uploads(through);
    upload.body_bytes_max = 64 << 20;
    passed->add(upload);
    door = started(any_port(), passed);
    through->follow({"127.0.0.1", head->port(), ""});
  }
  ~two_servers() {
    door->stop();
    head->stop();
  }
  client_response ask(const std::string& request) {
    client one(door->port());
    REQUIRE(one.send(request));
    return one.read_response();
  }
};

}  // namespace

TEST_CASE("a request comes to the head as it was sent, and the answer to the client") {
  two_servers world;
  const auto answer = world.ask(post("/v1/echo?a=b%20c", R"({"x":1})",
                                     "authorization: Bearer key\r\norigin: http://else.where\r\n"
                                     "connection: keep-alive, x-hop\r\nx-hop: 1\r\nx-own: 2\r\n"));
  CHECK(answer.status == 201);
  CHECK(answer.headers.at("x-of-the-head") == "yes");
  CHECK(answer.body == R"(/v1/echo?a=b%20c {"x":1})");
  CHECK(world.record->header("authorization") == "Bearer key");
  CHECK(world.record->header("x-own") == "2");
  CHECK(world.record->header("x-hop").empty());
  CHECK(world.record->header("origin").empty());
  CHECK(world.record->header("host") == "127.0.0.1:" + std::to_string(world.head->port()));
  CHECK_THAT(world.record->header("x-forwarded-for"), Contains("127.0.0.1:"));
}

TEST_CASE("a path with letters of other alphabets and spaces arrives as that path") {
  two_servers world;
  CHECK(world.ask(get("/v1/files/a%20b/%C3%A9%3F")).body == "/v1/files/a b/é?");
}

TEST_CASE("an answer of any size comes through whole") {
  two_servers world;
  const auto answer = world.ask(get("/v1/large"));
  CHECK(answer.complete);
  CHECK(answer.body == std::string(5 << 20, 'l'));
}

TEST_CASE("a live stream comes piece by piece, and the head is told when its reader leaves") {
  two_servers world;
  client one(world.door->port());
  REQUIRE(one.send(get("/v1/live")));
  CHECK_THAT(one.read_until("data: one\n\n"), Contains("200"));
  {
    const std::lock_guard lock(world.record->mutex);
    world.record->stream->write("data: two\n\n");
  }
  CHECK_THAT(one.read_until("data: two\n\n"), Contains("two"));
  one.leave();
  CHECK(world.record->stream_left.wait());
}

TEST_CASE("a stream whose head is lost is cut, not ended") {
  two_servers world;
  client one(world.door->port());
  REQUIRE(one.send(get("/v1/live")));
  one.read_until("data: one\n\n");
  world.head->stop();
  CHECK_THAT(one.rest(), !Contains("0\r\n\r\n"));
}

TEST_CASE("an upload streams to the head, and its refusal comes back") {
  two_servers world;
  const std::string body(3 << 20, 'u');
  CHECK(world.ask(post("/v1/up", body)).body == std::to_string(body.size()));
  CHECK(world.record->uploaded == body);
  const auto refused = world.ask(post("/v1/up", "four", "x-refuse: 1\r\n"));
  CHECK(refused.status == 413);
  CHECK_THAT(refused.body, Contains("up to 3 bytes"));
}

TEST_CASE("a door that finds a door where the head should be says so, and passes nothing on") {
  two_servers world;
  world.through->follow({"127.0.0.1", world.door->port(), ""});
  const auto answer = world.ask(get("/v1/large"));
  CHECK(answer.status == 503);
  CHECK_THAT(answer.body, Contains("there is a node's door") && Contains("server.host"));
  CHECK(world.ask(post("/v1/up", "abc")).status == 503);
}

TEST_CASE("without a head the answer is 503 with when to come again") {
  two_servers world;
  world.through->lose("it is gone");
  const auto lost = world.ask(get("/v1/large"));
  CHECK(lost.status == 503);
  CHECK(lost.headers.contains("retry-after"));
  CHECK_THAT(lost.body, Contains("head"));
  world.through->follow({"127.0.0.1", 1, ""});
  const auto nobody = world.ask(get("/v1/large"));
  CHECK(nobody.status == 503);
  CHECK_THAT(nobody.body, Contains("127.0.0.1:1"));
  CHECK(world.ask(post("/v1/up", "abc")).status == 503);
  world.through->follow({"127.0.0.1", world.head->port(), ""});
  CHECK(world.ask(get("/v1/large")).status == 200);
}
