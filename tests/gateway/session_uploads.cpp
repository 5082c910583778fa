// Bodies that go to a sink as they come, and answers that come from a source.
#include "server_client.hpp"

#include <catch2/catch.hpp>

#include <atomic>

using namespace tandem;
using namespace tandem::gateway;
using namespace tandem::gateway::testing;
using Catch::Contains;

namespace {

// What became of the bodies of one route.
struct sink_record {
  std::mutex mutex;
  std::string taken;
  std::size_t largest = 0;
  bool finished = false;
  std::atomic<int> open{0};
  std::optional<error> refusal;          // of the next write
  std::shared_ptr<promised<bool>> gate;  // writes wait for it
  std::atomic<bool> waits{false};
};

class recording_sink final : public body_sink {
 public:
  explicit recording_sink(std::shared_ptr<sink_record> to) : to_(std::move(to)) { ++to_->open; }
  ~recording_sink() override { --to_->open; }
  result<void> write(std::string_view bytes) override {
    to_->waits = true;
    if (to_->gate) to_->gate->wait();
    const std::lock_guard lock(to_->mutex);
    if (to_->refusal) return *to_->refusal;
    to_->taken += bytes;
    to_->largest = std::max(to_->largest, bytes.size());
    return {};
  }
  result<void> finish() override {
    to_->finished = true;
    return {};
  }

 private:
  const std::shared_ptr<sink_record> to_;
};

struct upload_world {
  std::shared_ptr<sink_record> record = std::make_shared<sink_record>();
  std::unique_ptr<server> running;

  explicit upload_world(std::int64_t body_bytes_max = 64 << 20) {
    auto routes = std::make_shared<router>();
    auto up = make_route("POST", "/up", [record = record](const auto& request, const auto& to) {
      REQUIRE(request->sink != nullptr);
      CHECK(request->body.empty());
      http_response response;
      response.body = std::to_string(record->taken.size());
      to->send(std::move(response));
    });
    up.open_sink = [record =
                        record](const http_request& request) -> result<std::shared_ptr<body_sink>> {
      if (request.header("content-type") == "wrong")
        return error{errc::bad_request, "wrong type", "content-type"};
      return std::shared_ptr<body_sink>(std::make_shared<recording_sink>(record));
    };
    up.body_bytes_max = body_bytes_max;
    routes->add(std::move(up));
    routes->add(make_route("GET", "/hello", [](const auto&, const auto& to) {
      http_response response;
      response.body = "hello";
      to->send(std::move(response));
    }));
    routes->add(make_route("GET", "/pieces", [](const auto& request, const auto& to) {
      const std::size_t count = std::stoul(request->query_parameter("count"));
      const std::size_t short_by = request->query_parameter("short").empty() ? 0 : 1;
      auto made = std::make_shared<std::size_t>(0);
      to->send_pieces({}, count * 100'000, [=]() -> result<std::string> {
        if (*made + short_by == count) return std::string();
        return std::string(100'000, static_cast<char>('a' + (*made)++ % 26));
      });
    }));
    running = started(any_port(), routes);
  }
  bool says_hello() {
    client other(running->port());
    other.send(get("/hello"));
    return other.read_response().status == 200;
  }
};

std::string head(const std::string& more) {
  return "POST /up HTTP/1.1\r\nhost: localhost\r\n" + more + "\r\n";
}

}  // namespace

TEST_CASE(
    "a body far above the server's limit streams into its sink, and the next request follows") {
  upload_world world;
  client one(world.running->port());
  const std::string body(20 << 20, 'x');
  std::thread sender([&] { one.send(post("/up", body) + get("/hello")); });
  const auto response = one.read_response();
  CHECK(response.status == 200);
  CHECK(response.body == std::to_string(body.size()));
  CHECK(one.read_response().body == "hello");
  sender.join();
  CHECK(world.record->taken == body);
  CHECK(world.record->finished);
  CHECK(world.record->largest <= 256 << 10);
  CHECK(eventually([&] { return world.record->open == 0; }));
}

TEST_CASE("a chunked body, and one the client asks leave for, stream as well") {
  upload_world world;
  client one(world.running->port());
  one.send(head("transfer-encoding: chunked\r\n") + "3\r\nabc\r\n");
  one.send("4\r\ndefg\r\n0\r\n\r\n");
  CHECK(one.read_response().body == "7");
  one.send(head("content-length: 2\r\nexpect: 100-continue\r\n"));
  CHECK(one.read_until("\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n");
  one.send("hi");
  CHECK(one.read_response().body == "9");
  CHECK(world.record->taken == "abcdefghi");
}

TEST_CASE("an empty body reaches its sink's end") {
  upload_world world;
  client one(world.running->port());
  one.send(head("content-length: 0\r\n"));
  CHECK(one.read_response().body == "0");
  CHECK(world.record->finished);
}

TEST_CASE("a sink that is slow slows its client and nobody else") {
  upload_world world;
  world.record->gate = std::make_shared<promised<bool>>();
  client one(world.running->port());
  std::atomic<bool> sent{false};
  const std::string body(32 << 20, 'x');
  std::thread sender([&] {
    one.send(post("/up", body));
    sent = true;
  });
  REQUIRE(eventually([&] { return world.record->waits.load(); }));
  for (int i = 0; i < 20; ++i) CHECK(world.says_hello());
  CHECK_FALSE(sent);
  world.record->gate->set(true);
  CHECK(one.read_response().body == std::to_string(body.size()));
  sender.join();
}

TEST_CASE("an upload that is cut off leaves its sink unfinished and gone") {
  upload_world world;
  {
    client one(world.running->port());
    one.send(head("content-length: 1000000\r\n") + std::string(300'000, 'x'));
    REQUIRE(eventually([&] { return world.record->waits.load(); }));
    one.leave_with_reset();
  }
  CHECK(eventually([&] { return world.record->open == 0; }));
  CHECK_FALSE(world.record->finished);
  CHECK(world.says_hello());
}

TEST_CASE("a sink's refusal is the answer, at once, with its reason") {
  upload_world world;
  world.record->refusal =
      error{errc::io, "The server's disk is full: the file was not kept.", "file"};
  client one(world.running->port());
  const std::string body(8 << 20, 'x');
  std::thread sender([&] { one.send(post("/up", body)); });
  const auto response = one.read_response();
  CHECK(response.status == 507);
  CHECK_THAT(response.body, Contains("disk is full") && Contains("insufficient_storage"));
  CHECK(response.headers.at("x-should-retry") == "false");
  CHECK(response.headers.at("connection") == "close");
  CHECK(one.closed_by_server());
  sender.join();
  CHECK(eventually([&] { return world.record->open == 0; }));
  CHECK_FALSE(world.record->finished);
}

TEST_CASE("a refusal of the last piece is told as well, and the connection lives on") {
  upload_world world;
  world.record->refusal = error{errc::too_large, "too much", "file"};
  client one(world.running->port());
  one.send(post("/up", "small"));
  CHECK(one.read_response().status == 413);
  one.send(get("/hello"));
  CHECK(one.read_response().status == 200);
}

TEST_CASE("what the head tells is refused before the body is read") {
  upload_world world(1000);
  client large(world.running->port());
  large.send(head("content-length: 1001\r\n"));
  CHECK(large.read_response().status == 413);
  client chunked(world.running->port());
  chunked.send(head("transfer-encoding: chunked\r\n") + "400\r\n" + std::string(1024, 'x'));
  CHECK(chunked.read_response().status == 413);
  client wrong(world.running->port());
  wrong.send(head("content-type: wrong\r\ncontent-length: 3\r\n") + "abc" + get("/hello"));
  CHECK(wrong.read_response().status == 400);
  CHECK(wrong.read_response().status == 200);
  CHECK(eventually([&] { return world.record->open == 0; }));
}

TEST_CASE("an answer in pieces comes whole, slowly read or not, and HEAD has its length alone") {
  upload_world world;
  client one(world.running->port());
  one.send(get("/pieces?count=150") + get("/hello"));
  const auto response = one.read_response();
  CHECK(response.complete);
  CHECK(response.headers.at("content-length") == "15000000");
  REQUIRE(response.body.size() == 15'000'000);
  for (std::size_t i = 0; i < 150; ++i)
    CHECK(response.body[i * 100'000] == static_cast<char>('a' + i % 26));
  CHECK(one.read_response().body == "hello");
  one.send("HEAD /pieces?count=150 HTTP/1.1\r\nhost: a\r\n\r\n");
  CHECK(one.read_response(true).headers.at("content-length") == "15000000");
  one.send(get("/pieces?count=0"));
  CHECK(one.read_response().body.empty());
}

TEST_CASE("an answer whose source ends early is cut, not completed") {
  upload_world world;
  client one(world.running->port());
  one.send(get("/pieces?count=3&short=1"));
  CHECK_FALSE(one.read_response().complete);
  CHECK(world.says_hello());
}

TEST_CASE("a client that leaves amid a long answer frees it") {
  upload_world world;
  {
    client one(world.running->port(), 4096);
    one.send(get("/pieces?count=500"));
    one.read_until("\r\n\r\n");
    one.leave_with_reset();
  }
  CHECK(eventually([&] { return world.running->counts().requests_active == 0; }));
}
