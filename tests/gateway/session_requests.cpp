// What arrives on a connection, and in which order it is answered.
#include "server_client.hpp"

#include <catch2/catch.hpp>

using namespace tandem::gateway;
using namespace tandem::gateway::testing;
using Catch::Contains;

TEST_CASE("one connection carries many requests") {
  const auto running = started(any_port(), basic_routes());
  client one(running->port());
  for (int round = 0; round < 3; ++round) {
    one.send(get("/hello"));
    const client_response response = one.read_response();
    CHECK(response.status == 200);
    CHECK(response.body == "hello");
    CHECK(response.headers.count("connection") == 0);
    CHECK(response.headers.at("server") == "tandem");
  }
  CHECK(running->counts().connections_total == 1);
  CHECK(running->counts().requests_total == 3);
}

TEST_CASE("requests sent in one write are answered in order, also when the first takes longest") {
  auto routes = basic_routes();
  promised<std::shared_ptr<responder>> slow;
  routes->add(make_route("GET", "/slow", [&](const auto&, const auto& to) { slow.set(to); }));
  const auto running = started(any_port(), routes);
  client one(running->port());
  one.send(get("/slow") + post("/echo", "second") + get("/hello"));
  slow.wait()->send(text("first"));
  CHECK(one.read_response().body == "first");
  CHECK(one.read_response().body == "second");
  CHECK(one.read_response().body == "hello");
}

TEST_CASE("a thousand pipelined requests are all answered") {
  const auto running = started(any_port(), basic_routes());
  client one(running->port());
  std::string all;
  for (int index = 0; index < 1000; ++index) all += post("/echo", std::to_string(index));
  std::thread writer([&] { one.send(all); });
  bool in_order = true;
  for (int index = 0; index < 1000; ++index)
    in_order = in_order && one.read_response().body == std::to_string(index);
  writer.join();
  CHECK(in_order);
}

TEST_CASE("a request may arrive byte by byte") {
  const auto running = started(any_port(), basic_routes());
  client one(running->port());
  const std::string chunked =
      "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
      "5;note=\"x\"\r\nhello\r\n6\r\n world\r\n0\r\ntrailer: dropped\r\n\r\n";
  const std::string empty =
      "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
      "0\r\n\r\n";
  for (const auto& [request, body] :
       {std::pair(post("/echo", "abc"), std::string("abc")),
        std::pair(chunked, std::string("hello world")), std::pair(empty, std::string())}) {
    for (const char byte : request) one.send({&byte, 1});
    const client_response response = one.read_response();
    CHECK(response.status == 200);
    CHECK(response.body == body);
  }
}

TEST_CASE("a large body arrives whole, on the pool's thread") {
  auto routes = basic_routes();
  promised<std::thread::id> small_on;
  promised<std::thread::id> large_on;
  routes->add(make_route("POST", "/where", [&](const auto& request, const auto& to) {
    (request->body.size() > 65536 ? large_on : small_on).set(std::this_thread::get_id());
    to->send(text(request->body));
  }));
  const auto running = started(any_port(), routes);
  client one(running->port());
  const std::string large(3'000'000, 'x');
  one.send(post("/where", large));
  CHECK(one.read_response().body == large);
  one.send(post("/where", "small"));
  CHECK(one.read_response().body == "small");
  CHECK(small_on.wait() != large_on.wait());
}

TEST_CASE("the body given to a handler is padded for the JSON parser") {
  auto routes = basic_routes();
  routes->add(make_route("POST", "/padding", [](const auto& request, const auto& to) {
    to->send(text(request->body.capacity() >= request->body.size() + 64 ? "padded" : "bare"));
  }));
  const auto running = started(any_port(), routes);
  client one(running->port());
  for (const std::size_t bytes : {0, 1, 100, 70'000}) {
    one.send(post("/padding", std::string(bytes, 'x')));
    CHECK(one.read_response().body == "padded");
  }
}

TEST_CASE("a handler sees the decoded path, the raw query, lower-case names and the peer") {
  auto routes = basic_routes();
  routes->add(make_route("GET", "/v1/models/{id...}", [](const auto& request, const auto& to) {
    to->send(text(request->path_parameters.at(0) + "|" + request->query + "|" +
                  std::string(request->header("x-note")) + "|" +
                  request->peer.substr(0, request->peer.find(':'))));
  }));
  const auto running = started(any_port(), routes);
  client one(running->port());
  const std::string expected = "org/a b|limit=%31|Yes|127.0.0.1";
  one.send(get("/v1/models/org%2Fa%20b?limit=%31", "X-NOTE:   Yes  \r\n"));
  CHECK(one.read_response().body == expected);
  one.send(get("http://some.host:99/v1/models/org/a%20b?limit=%31", "x-note: Yes\r\n"));
  CHECK(one.read_response().body == expected);
}

TEST_CASE("HTTP/1.0 is answered and closed, or kept when it asks for it") {
  const auto running = started(any_port(), basic_routes());
  client one(running->port());
  one.send("GET /hello HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
  CHECK(one.read_response().headers.at("connection") == "keep-alive");
  one.send("GET /hello HTTP/1.0\r\n\r\n");
  const client_response last = one.read_response();
  CHECK(last.body == "hello");
  CHECK(last.headers.at("connection") == "close");
  CHECK(one.closed_by_server());
}

TEST_CASE("connection: close is obeyed") {
  const auto running = started(any_port(), basic_routes());
  client one(running->port());
  one.send(get("/hello", "connection: close\r\n") + get("/hello"));
  CHECK(one.read_response().headers.at("connection") == "close");
  CHECK(one.rest().empty());
}

TEST_CASE("HEAD gets the headers of GET and no body") {
  const auto running = started(any_port(), basic_routes());
  client one(running->port());
  one.send("HEAD /hello HTTP/1.1\r\nhost: x\r\n\r\n" + get("/hello"));
  const client_response head = one.read_response(true);
  CHECK(head.status == 200);
  CHECK(head.headers.at("content-length") == "5");
  CHECK(one.read_response().body == "hello");
}

TEST_CASE("a client that waits for 100 Continue is told to go on") {
  const auto running = started(any_port(), basic_routes());
  client one(running->port());
  one.send("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n");
  CHECK(one.read_response().status == 100);
  one.send("body");
  CHECK(one.read_response().body == "body");
}

TEST_CASE("a client that waits for 100 Continue learns of a refusal before it sends") {
  const auto running = started(any_port(), basic_routes());
  client one(running->port());
  one.send(
      "POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n");
  CHECK(one.read_response().status == 404);
  client two(running->port());
  two.send("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nexpect: a-miracle\r\n\r\nbody");
  CHECK(two.read_response().status == 417);
}

TEST_CASE("every answer carries a request id, the client's when it is sane") {
  const auto running = started(any_port(), basic_routes());
  client one(running->port());
  one.send(get("/hello", "x-request-id: trace.42_a-B\r\n"));
  CHECK(one.read_response().headers.at("x-request-id") == "trace.42_a-B");
  for (const std::string& bad :
       {std::string("two words"), std::string(129, 'a'), std::string("\"x\"")}) {
    one.send(get("/nowhere", "x-request-id: " + bad + "\r\n"));
    const std::string id = one.read_response().headers.at("x-request-id");
    CHECK(id.size() == 28);
    CHECK(id.starts_with("req_"));
    CHECK(id.find_first_not_of("0123456789abcdef", 4) == std::string::npos);
  }
}

TEST_CASE("what a header's value holds cannot end its line") {
  auto routes = basic_routes();
  routes->add(make_route("GET", "/echo-header", [](const auto& request, const auto& to) {
    http_response response = text("fine");
    response.headers.emplace_back("x-note", request->query_parameter("note"));
    to->send(std::move(response));
  }));
  const auto running = started(any_port(), routes);
  client one(running->port());
  one.send(get("/echo-header?note=a%0d%0aset-cookie:%20b"));
  const client_response response = one.read_response();
  CHECK(response.headers.at("x-note") == "a  set-cookie: b");
  CHECK(response.headers.count("set-cookie") == 0);
}

TEST_CASE("a client that closes only its sending half still gets what is ready") {
  const auto running = started(any_port(), basic_routes());
  client one(running->port());
  one.send(get("/hello") + get("/hello"));
  one.close_sending_half();
  CHECK(one.read_response().body == "hello");
  CHECK(one.read_response().body == "hello");
  CHECK(one.closed_by_server());
}

TEST_CASE("many connections at once are all served") {
  const auto running = started(any_port(), basic_routes());
  std::vector<std::unique_ptr<client>> clients;
  for (int index = 0; index < 300; ++index) {
    clients.push_back(std::make_unique<client>(running->port()));
    clients.back()->send(post("/echo", std::to_string(index)));
  }
  bool all = true;
  for (int index = 0; index < 300; ++index)
    all = all &&
          clients[static_cast<std::size_t>(index)]->read_response().body == std::to_string(index);
  CHECK(all);
  CHECK(running->counts().connections_open == 300);
  clients.clear();
  CHECK(eventually([&] { return running->counts().connections_open == 0; }));
}

TEST_CASE("several threads serve as one does") {
  server_settings settings = any_port();
  settings.threads = 3;
  const auto running = started(settings, basic_routes());
  std::vector<std::unique_ptr<client>> clients;
  for (int index = 0; index < 30; ++index)
    clients.push_back(std::make_unique<client>(running->port()));
  for (int round = 0; round < 3; ++round) {
    for (const auto& one : clients) one->send(get("/hello"));
    for (const auto& one : clients) CHECK(one->read_response().body == "hello");
  }
}
