// Answers that take their time: streams, heartbeats, clients that leave, handlers that fail.
#include "server_client.hpp"

#include <catch2/catch.hpp>

#include <atomic>

using namespace tandem::gateway;
using namespace tandem::gateway::testing;
using Catch::Contains;
using clock_type = std::chrono::steady_clock;

namespace {

// GET /stream hands its responder to the test.
struct held_stream {
  std::shared_ptr<router> routes = basic_routes();
  promised<std::shared_ptr<responder>> held;

  held_stream() {
    routes->add(
        make_route("GET", "/stream", [this](const auto&, const auto& to) { held.set(to); }));
  }
};

}  // namespace

TEST_CASE("a stream leaves chunk by chunk, and the connection is kept") {
  held_stream at;
  const auto running = started(any_port(), at.routes);
  client one(running->port());
  one.send(get("/stream"));
  const auto to = at.held.wait();
  to->begin(200, "text/event-stream", {{"cache-control", "no-cache"}});
  const std::string head = one.read_until("\r\n\r\n");
  CHECK_THAT(head, Contains("transfer-encoding: chunked"));
  CHECK_THAT(head, Contains("cache-control: no-cache"));
  for (const std::string event : {"data: 1\n\n", "data: 2\n\n"}) {
    to->write(event);
    CHECK(one.read_chunk() == event);  // there before the next is written
  }
  to->end();
  CHECK(one.read_chunk() == "");
  one.send(get("/hello"));
  CHECK(one.read_response().body == "hello");
}

TEST_CASE("to HTTP/1.0 a stream ends with the connection") {
  held_stream at;
  const auto running = started(any_port(), at.routes);
  client one(running->port());
  one.send("GET /stream HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
  const auto to = at.held.wait();
  to->begin(200, "text/plain", {});
  to->write("all of ");
  to->write("it");
  to->end();
  const client_response response = one.read_response();
  CHECK(response.body == "all of it");
  CHECK(response.headers.at("connection") == "close");
  CHECK(response.headers.count("transfer-encoding") == 0);
}

TEST_CASE("a HEAD for a stream gets its head alone") {
  held_stream at;
  const auto running = started(any_port(), at.routes);
  client one(running->port());
  one.send("HEAD /stream HTTP/1.1\r\nhost: x\r\n\r\n");
  const auto to = at.held.wait();
  to->begin(200, "text/plain", {});
  to->write("unseen");
  to->end();
  CHECK(one.read_response(true).status == 200);
  one.send(get("/hello"));
  CHECK(one.read_response().body == "hello");
}

TEST_CASE("chunks written from many threads arrive whole") {
  held_stream at;
  const auto running = started(any_port(), at.routes);
  client one(running->port());
  one.send(get("/stream"));
  const auto to = at.held.wait();
  to->begin(200, "text/plain", {});
  std::vector<std::thread> writers;
  for (int writer = 0; writer < 4; ++writer)
    writers.emplace_back([&] {
      for (int index = 0; index < 500; ++index) to->write("<one chunk>");
    });
  for (std::thread& writer : writers) writer.join();
  to->end();
  const client_response response = one.read_response();
  CHECK(response.complete);
  std::string expected;
  for (int index = 0; index < 2000; ++index) expected += "<one chunk>";
  CHECK(response.body == expected);
}

TEST_CASE("a client that leaves during a stream is noticed within milliseconds, nothing written") {
  for (const bool reset : {false, true}) {
    held_stream at;
    const auto running = started(any_port(), at.routes);
    client one(running->port());
    one.send(get("/stream"));
    const auto to = at.held.wait();
    promised<clock_type::time_point> gone;
    to->on_gone([&] { gone.set(clock_type::now()); });
    to->begin(200, "text/event-stream", {});
    to->write("data: 1\n\n");
    one.read_until("data: 1\n\n");
    const auto left = clock_type::now();
    reset ? one.leave_with_reset() : one.leave();
    CHECK(gone.wait() - left < 500ms);
    CHECK(running->counts().clients_gone == 1);
    CHECK(eventually([&] { return running->counts().requests_active == 0; }));
    to->write("data: into the void\n\n");
    to->end();
  }
}

TEST_CASE("a client that leaves before its answer has begun is noticed") {
  held_stream at;
  const auto running = started(any_port(), at.routes);
  client one(running->port());
  one.send(get("/stream"));
  const auto to = at.held.wait();
  promised<bool> gone;
  to->on_gone([&] { gone.set(true); });
  one.leave();
  CHECK(gone.wait());
  to->send(text("too late"));
}

TEST_CASE("who asks late to be told of a departure is told at once") {
  held_stream at;
  const auto running = started(any_port(), at.routes);
  client one(running->port());
  one.send(get("/stream"));
  const auto to = at.held.wait();
  one.leave();
  CHECK(eventually([&] { return running->counts().clients_gone == 1; }));
  bool told = false;
  to->on_gone([&] { told = true; });
  CHECK(told);
}

TEST_CASE("on_gone is silent when the answer reached its end") {
  held_stream at;
  const auto running = started(any_port(), at.routes);
  std::atomic<int> told = 0;
  {
    client one(running->port());
    one.send(get("/stream"));
    const auto to = at.held.wait();
    to->on_gone([&] { ++told; });
    to->send(text("done"));
    CHECK(one.read_response().body == "done");
  }
  CHECK(eventually([&] { return running->counts().connections_open == 0; }));
  CHECK(told == 0);
  CHECK(running->counts().clients_gone == 0);
}

TEST_CASE("a pipelined request does not hide that its sender has left") {
  held_stream at;
  const auto running = started(any_port(), at.routes);
  client one(running->port());
  one.send(get("/stream") + post("/echo", "never answered"));
  promised<bool> gone;
  at.held.wait()->on_gone([&] { gone.set(true); });
  one.leave();
  CHECK(gone.wait());
}

TEST_CASE("a reader that lets too much pile up is cut off") {
  held_stream at;
  const auto running = started(any_port(), at.routes);
  client one(running->port(), 4096);
  one.send(get("/stream"));
  const auto to = at.held.wait();
  promised<bool> gone;
  to->on_gone([&] { gone.set(true); });
  to->begin(200, "text/event-stream", {});
  // More than the sockets' buffers hold: the rest has to wait in the server.
  const std::string event(64 << 10, 'x');
  for (int index = 0; index < 1000 && !gone.happened(); ++index) to->write(event);
  CHECK(gone.wait());
  CHECK(eventually([&] { return running->counts().connections_open == 0; }));
}

TEST_CASE("a reader that takes nothing is cut off after the write time-out") {
  held_stream at;
  server_settings settings = any_port();
  settings.write_timeout_ms = 60;
  const auto running = started(settings, at.routes);
  client one(running->port(), 4096);
  one.send(get("/stream"));
  // One answer of 64 MB: no limit forbids it, the time-out ends it.
  at.held.wait()->send(text(std::string(64 << 20, 'x')));
  CHECK(eventually([&] { return running->counts().connections_open == 0; }));
  CHECK(running->counts().clients_gone == 1);
}

TEST_CASE("a large answer reaches a reader who takes it") {
  held_stream at;
  const auto running = started(any_port(), at.routes);
  client one(running->port());
  one.send(get("/stream"));
  at.held.wait()->send(text(std::string(16 << 20, 'x')));
  CHECK(one.read_response().body.size() == 16 << 20);
}

TEST_CASE("comments are sent while a stream is silent") {
  held_stream at;
  server_settings settings = any_port();
  settings.heartbeat_ms = 20;
  const auto running = started(settings, at.routes);
  client one(running->port());
  one.send(get("/stream"));
  const auto to = at.held.wait();
  to->heartbeat(": waiting\n\n", "text/event-stream");
  CHECK_THAT(one.read_until("\r\n\r\n"), Contains("content-type: text/event-stream"));
  CHECK(one.read_chunk() == ": waiting\n\n");
  CHECK(one.read_chunk() == ": waiting\n\n");
  to->begin(200, "text/event-stream", {});
  to->write("data: 1\n\n");
  std::string chunk = ": waiting\n\n";
  while (chunk == ": waiting\n\n") chunk = one.read_chunk().value();
  CHECK(chunk == "data: 1\n\n");
  CHECK(one.read_chunk() == ": waiting\n\n");  // goes on between events
  to->end();
  while (!chunk.empty()) chunk = one.read_chunk().value();
  one.send(get("/hello"));
  CHECK(one.read_response().body == "hello");
}

TEST_CASE("white space comes before a late JSON body") {
  held_stream at;
  server_settings settings = any_port();
  settings.heartbeat_ms = 20;
  const auto running = started(settings, at.routes);
  client one(running->port());
  one.send(get("/stream"));
  const auto to = at.held.wait();
  to->heartbeat("\n", "application/json");
  CHECK_THAT(one.read_until("\r\n\r\n"), Contains("content-type: application/json"));
  CHECK(one.read_chunk() == "\n");
  http_response late;
  late.body = "{}";
  to->send(late);
  std::string body;
  while (const auto chunk = one.read_chunk()) {
    if (chunk->empty()) break;
    body += *chunk;
  }
  CHECK(body.substr(body.find_first_not_of('\n')) == "{}");
}

TEST_CASE("an answer that is quick enough has no heartbeat in it") {
  held_stream at;
  const auto running = started(any_port(), at.routes);
  client one(running->port());
  one.send(get("/stream"));
  const auto to = at.held.wait();
  to->heartbeat("\n", "application/json");
  to->send(text("quick"));
  const client_response response = one.read_response();
  CHECK(response.body == "quick");
  CHECK(response.headers.at("content-length") == "5");
}

TEST_CASE("an answer that does not come by its deadline is 504, and its maker is told to stop") {
  held_stream at;
  server_settings settings = any_port();
  settings.request_timeout_ms = 40;
  const auto running = started(settings, at.routes);
  client one(running->port());
  one.send(get("/stream"));
  promised<bool> gone;
  const auto to = at.held.wait();
  to->on_gone([&] { gone.set(true); });
  const client_response response = one.read_response();
  CHECK(response.status == 504);
  CHECK_THAT(response.body, Contains("deadline_exceeded"));
  CHECK(gone.wait());
  to->send(text("too late"));
  one.send(get("/hello"));
  CHECK(one.read_response().body == "hello");
}

TEST_CASE("a stream that has begun has no deadline of the server's") {
  held_stream at;
  server_settings settings = any_port();
  settings.request_timeout_ms = 20;
  settings.heartbeat_ms = 50;
  const auto running = started(settings, at.routes);
  client one(running->port());
  one.send(get("/stream"));
  const auto to = at.held.wait();
  to->begin(200, "text/event-stream", {});
  to->heartbeat(": on\n\n", "text/event-stream");
  one.read_until("\r\n\r\n");
  for (int beat = 0; beat < 3; ++beat) CHECK(one.read_chunk() == ": on\n\n");
  to->end();
  CHECK(one.read_chunk() == "");
}

TEST_CASE("a responder dropped without an answer answers 500") {
  auto routes = basic_routes();
  routes->add(make_route("GET", "/drop", [](const auto&, const auto&) {}));
  const auto running = started(any_port(), routes);
  client one(running->port());
  one.send(get("/drop"));
  const client_response response = one.read_response();
  CHECK(response.status == 500);
  CHECK_THAT(response.body, Contains(R"("type":"server_error")"));
  one.send(get("/hello"));
  CHECK(one.read_response().status == 200);
}

TEST_CASE("a handler that throws answers 500 and the server goes on") {
  auto routes = basic_routes();
  const http_handler throws = [](const auto&, const auto&) {
    throw std::runtime_error("the secret of the house");
  };
  routes->add(make_route("GET", "/throw", throws));
  routes->add(make_route("POST", "/throw", throws));
  const auto running = started(any_port(), routes);
  client one(running->port());
  one.send(get("/throw") + post("/throw", std::string(100'000, 'x')));
  for (int round = 0; round < 2; ++round) {
    const client_response response = one.read_response();
    CHECK(response.status == 500);
    CHECK_THAT(response.body, !Contains("secret"));
  }
  one.send(get("/hello"));
  CHECK(one.read_response().status == 200);
}

TEST_CASE("a stream whose maker fails is cut, never ended as if it were whole") {
  held_stream at;
  const auto running = started(any_port(), at.routes);
  client one(running->port());
  one.send(get("/stream"));
  {
    auto to = at.held.wait();
    to->begin(200, "text/event-stream", {});
    to->write("data: 1\n\n");
    one.read_until("data: 1\n\n");
    at.held.set(nullptr);
  }
  CHECK_THAT(one.rest(), !Contains("0\r\n\r\n"));
}

TEST_CASE("an answer beyond its first is ignored") {
  held_stream at;
  const auto running = started(any_port(), at.routes);
  client one(running->port());
  one.send(get("/stream"));
  const auto to = at.held.wait();
  to->send(text("first"));
  to->send(text("second"));
  to->begin(200, "text/plain", {});
  to->write("third");
  to->end();
  CHECK(one.read_response().body == "first");
  one.send(get("/hello"));
  CHECK(one.read_response().body == "hello");
}

TEST_CASE("when the pool for large bodies is full, the next is told to come again") {
  auto routes = basic_routes();
  promised<bool> release;
  routes->add(make_route("POST", "/busy", [&](const auto&, const auto& to) {
    release.wait();
    to->send(text("done"));
  }));
  const auto running = started(any_port(), routes);
  const std::string request = post("/busy", std::string(70'000, 'x'));
  std::vector<std::unique_ptr<client>> clients;
  // One is being handled, 64 wait; the rest is refused.
  for (int index = 0; index < 70; ++index) {
    clients.push_back(std::make_unique<client>(running->port()));
    clients.back()->send(request);
  }
  CHECK(eventually([&] { return running->counts().requests_total == 70; }));
  release.set(true);
  int done = 0;
  int refused = 0;
  for (const auto& one : clients) {
    const client_response response = one->read_response();
    done += response.status == 200;
    refused += response.status == 429 && response.headers.at("retry-after") == "1";
  }
  CHECK(done >= 64);
  CHECK(refused >= 5);
  CHECK(done + refused == 70);
}
