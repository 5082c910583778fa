// What a connection must not get through, and what that costs others: nothing.
#include "server_client.hpp"

#include <catch2/catch.hpp>

using namespace tandem::gateway;
using namespace tandem::gateway::testing;
using Catch::Contains;

namespace {

// Each is refused with the status and closed; the server goes on.
struct refused_case {
  const char* what;
  std::string bytes;
  int status;
};

}  // namespace

TEST_CASE("what is no valid request is refused with OpenAI's error body, and the connection ends") {
  const auto running = started(any_port(), basic_routes());
  const std::vector<refused_case> cases = {
      {"garbage", "\x16\x03\x01 this is not http\r\n\r\n", 400},
      {"no version", "GET /hello\r\n\r\n", 400},
      {"HTTP/2 without upgrade", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"no host", "GET /hello HTTP/1.1\r\n\r\n", 400},
      {"two hosts", "GET /hello HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400},
      {"space before colon", "GET /hello HTTP/1.1\r\nhost : a\r\n\r\n", 400},
      {"broken escape", get("/hello%2"), 400},
      {"NUL in the path", get("/hello%00"), 400},
      {"target is no path", get("hello"), 400},
      {"length is no number", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: many\r\n\r\n",
       400},
      {"length is negative", "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", 400},
      {"length beyond 64 bits",
       "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999999\r\n\r\n", 400},
      {"chunk size is no number",
       "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", 400},
      {"chunk longer than it says",
       "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n",
       400},
      {"chunk size beyond 64 bits",
       "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
       "fffffffffffffffffff\r\n",
       400},
  };
  for (const refused_case& refused : cases) {
    INFO(refused.what);
    client one(running->port());
    one.send(refused.bytes + get("/hello"));
    const client_response response = one.read_response();
    CHECK(response.status == refused.status);
    CHECK_THAT(response.body, Contains(R"({"error":{"message":")"));
    CHECK_THAT(response.body, Contains(R"("param":null,"code":")"));
    CHECK(response.headers.at("content-type") == "application/json");
    CHECK(response.headers.at("connection") == "close");
    CHECK(response.headers.count("x-request-id") == 1);
    one.close_sending_half();
    CHECK(one.rest().empty());
  }
  client next(running->port());
  next.send(get("/hello"));
  CHECK(next.read_response().status == 200);
}

TEST_CASE("a request whose length could be read in two ways is refused") {
  const auto running = started(any_port(), basic_routes());
  const std::string line = "POST /echo HTTP/1.1\r\nhost: a\r\n";
  const std::vector<refused_case> cases = {
      {"length and chunked",
       line + "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"chunked and length",
       line + "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n", 400},
      {"two lengths", line + "content-length: 5\r\ncontent-length: 6\r\n\r\nhello", 400},
      {"one length twice", line + "content-length: 5\r\ncontent-length: 5\r\n\r\nhello", 400},
      {"a list of lengths", line + "content-length: 5, 6\r\n\r\nhello", 400},
      {"chunked twice",
       line + "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"identity after chunked", line + "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
       501},
      {"a coding besides chunked", line + "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
      {"an unknown coding", line + "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
      {"chunked in HTTP/1.0",
       "POST /echo HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400},
  };
  for (const refused_case& refused : cases) {
    INFO(refused.what);
    client one(running->port());
    one.send(refused.bytes + get("/hello"));
    CHECK(one.read_response().status == refused.status);
    one.close_sending_half();
    CHECK(one.rest().empty());  // what follows was not taken for a request
  }
}

TEST_CASE("a body above the limit is refused before it is read") {
  server_settings settings = any_port();
  settings.max_body_bytes = 1000;
  const auto running = started(settings, basic_routes());

  client announced(running->port());
  announced.send("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n");
  const client_response response = announced.read_response();
  CHECK(response.status == 413);
  CHECK_THAT(response.body, Contains("1000 bytes"));
  CHECK(response.headers.at("connection") == "close");

  client chunked(running->port());
  chunked.send("POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n300\r\n" +
               std::string(0x300, 'x') + "\r\n300\r\n");
  CHECK(chunked.read_response().status == 413);

  client fits(running->port());
  fits.send(post("/echo", std::string(1000, 'x')));
  CHECK(fits.read_response().status == 200);
}

TEST_CASE("a client that sends its whole huge body first still reads the refusal") {
  server_settings settings = any_port();
  settings.max_body_bytes = 1 << 20;
  const auto running = started(settings, basic_routes());
  client one(running->port());
  CHECK(one.send(post("/echo", std::string(2 << 20, 'x'))));
  CHECK(one.read_response().status == 413);
}

TEST_CASE("headers above the limit are refused, in number, length or as chunk extensions") {
  server_settings settings = any_port();
  settings.max_header_bytes = 4096;
  const auto running = started(settings, basic_routes());
  std::string many = "GET /hello HTTP/1.1\r\nhost: x\r\n";
  for (int index = 0; index < 1000; ++index) many += "x-" + std::to_string(index) + ": y\r\n";
  const std::string chunked =
      "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
  for (const std::string& bytes :
       {many, get("/hello", "x-long: " + std::string(5000, 'y')), "GET /" + std::string(9000, 'a'),
        chunked + "1;" + std::string(20'000, 'x'),
        chunked + "0\r\nx: " + std::string(20'000, 'x')}) {
    client one(running->port());
    one.send(bytes);
    CHECK(one.read_response().status == 431);
  }
}

TEST_CASE("unknown addresses and methods get JSON error bodies and keep the connection") {
  const auto running = started(any_port(), basic_routes());
  client one(running->port());
  one.send(get("/v1/nowhere"));
  client_response response = one.read_response();
  CHECK(response.status == 404);
  CHECK_THAT(response.body, Contains("Unknown request URL: GET /v1/nowhere"));
  CHECK_THAT(response.body, Contains(R"("code":"unknown_url")"));

  one.send(post("/hello", "a body that is read and dropped"));
  response = one.read_response();
  CHECK(response.status == 405);
  CHECK(response.headers.at("allow") == "GET, HEAD, OPTIONS");
  CHECK_THAT(response.body, Contains(R"("code":"method_not_supported")"));

  one.send("BREW /hello HTTP/1.1\r\nhost: x\r\n\r\n");
  CHECK(one.read_response().status == 405);

  one.send("OPTIONS /echo HTTP/1.1\r\nhost: x\r\n\r\n");
  response = one.read_response();
  CHECK(response.status == 204);
  CHECK(response.headers.at("allow") == "POST, OPTIONS");

  one.send("OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n");
  CHECK(one.read_response().status == 204);
  one.send(get("/hello"));
  CHECK(one.read_response().status == 200);
  CHECK(running->counts().connections_total == 1);
}

TEST_CASE("a refused request with a large body ends the connection instead of reading it") {
  const auto running = started(any_port(), basic_routes());
  client one(running->port());
  one.send("POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n");
  const client_response response = one.read_response();
  CHECK(response.status == 404);
  CHECK(response.headers.at("connection") == "close");
}

TEST_CASE("compressed bodies are refused") {
  const auto running = started(any_port(), basic_routes());
  client one(running->port());
  one.send(post("/echo", "xx", "content-encoding: gzip\r\n"));
  CHECK(one.read_response().status == 415);
}

TEST_CASE("a header that never ends is answered 408") {
  server_settings settings = any_port();
  settings.header_timeout_ms = 60;
  const auto running = started(settings, basic_routes());
  client one(running->port());
  one.send("GET /hello HTTP/1.1\r\nhost:");
  const client_response response = one.read_response();
  CHECK(response.status == 408);
  CHECK_THAT(response.body, Contains("request_timeout"));
  one.close_sending_half();
  CHECK(one.rest().empty());
}

TEST_CASE("a sender that keeps trickling does not win time") {
  server_settings settings = any_port();
  settings.header_timeout_ms = 100;
  const auto running = started(settings, basic_routes());
  client one(running->port());
  one.send("GET /hello HTTP/1.1\r\nhost: x\r\n");
  pollfd ready{one.native(), POLLIN, 0};
  while (::poll(&ready, 1, 5) == 0) REQUIRE(one.send("x"));
  CHECK(one.read_response().status == 408);
}

TEST_CASE("a body that never ends is answered 408") {
  server_settings settings = any_port();
  settings.body_timeout_ms = 60;
  const auto running = started(settings, basic_routes());
  client one(running->port());
  one.send("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf");
  CHECK(one.read_response().status == 408);
}

TEST_CASE("a connection without a request is closed without a word") {
  server_settings settings = any_port();
  settings.header_timeout_ms = 50;
  settings.idle_timeout_ms = 50;
  const auto running = started(settings, basic_routes());
  client silent(running->port());
  CHECK(silent.rest().empty());
  client once(running->port());
  once.send(get("/hello"));
  CHECK(once.read_response().status == 200);
  CHECK(once.rest().empty());
  CHECK(running->counts().clients_gone == 0);
}

TEST_CASE("one connection too many is told so, and room is made when others leave") {
  server_settings settings = any_port();
  settings.max_connections = 2;
  const auto running = started(settings, basic_routes());
  auto first = std::make_unique<client>(running->port());
  client second(running->port());
  for (client* one : {first.get(), &second}) {
    one->send(get("/hello"));
    CHECK(one->read_response().status == 200);
  }
  client third(running->port());
  third.send(get("/hello"));
  CHECK(third.read_response().status == 503);
  CHECK(running->counts().connections_refused == 1);
  third.leave();
  first.reset();
  CHECK(eventually([&] { return running->counts().connections_open == 1; }));
  client fourth(running->port());
  fourth.send(get("/hello"));
  CHECK(fourth.read_response().status == 200);
}
