#include "gateway/command/http_client.hpp"
#include "tests/support/scripted_server.hpp"

#include <catch2/catch.hpp>

namespace {

using namespace tandem;
using namespace tandem::gateway::command;
using namespace tandem::tests;
using std::chrono::milliseconds;

http_client client_for(const scripted_server& server, std::string key = {}) {
  auto client = http_client::create(server.address(), std::move(key));
  REQUIRE(client);
  return std::move(*client);
}

TEST_CASE("an address is scheme, host, port and prefix, with usual defaults") {
  CHECK(parse_address("http://127.0.0.1:8000")->port == "8000");
  CHECK(parse_address("https://example.org")->port == "443");
  CHECK(parse_address("https://example.org")->tls);
  CHECK(parse_address("example.org")->text == "http://example.org");
  CHECK(parse_address("http://h/deep/er/")->prefix == "/deep/er");
  CHECK(parse_address("http://[::1]:80")->host == "::1");
  for (const char* bad : {"", "http://", "ftp://x", "http://h:0", "http://h:99999", "http://h:x",
                          "http://[::1", "http://user@h", "http://h h"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_address(bad));
  }
}

TEST_CASE("two calls go over one kept connection, with the key") {
  const scripted_server server(
      [](const seen_request&) { return std::vector<std::string>{json_reply(200, R"({"a": 1})")}; });
  http_client client = client_for(server, "sk-1");
  CHECK(client.get_json("/x")->find("a"));
  CHECK(client.post_json("/y", "{}")->find("a"));
  CHECK(server.connections() == 1);
  REQUIRE(server.requests().size() == 2);
  CHECK(server.requests()[0].authorization == "Bearer sk-1");
  CHECK(server.requests()[1].method == "POST");
  CHECK(server.requests()[1].body == "{}");
}

TEST_CASE("a kept connection that was closed meanwhile is opened again") {
  const scripted_server server([](const seen_request&) {
    return std::vector<std::string>{json_reply(200, "{}"), ""};
  });
  http_client client = client_for(server);
  CHECK(client.get_json("/1"));
  CHECK(client.get_json("/2"));
  CHECK(server.connections() == 2);
}

TEST_CASE("a body comes in pieces as they arrive, and can be refused in the middle") {
  const scripted_server server([](const seen_request&) {
    return event_reply({"one", "two", "three"});
  });
  http_client client = client_for(server);
  std::string got;
  http_call call;
  call.target = "/stream";
  call.on_bytes = [&](std::string_view bytes) {
    got += bytes;
    return true;
  };
  const auto whole = client.exchange(call);
  REQUIRE(whole);
  CHECK(whole->header("content-type") == "text/event-stream");
  CHECK(got == "data: one\n\ndata: two\n\ndata: three\n\ndata: [DONE]\n\n");

  call.on_bytes = [](std::string_view) { return false; };
  CHECK(client.exchange(call));
  call.on_bytes = nullptr;
  CHECK(client.exchange(call)->body == got);
}

TEST_CASE("a refused answer becomes an error with the server's own words") {
  const scripted_server server([](const seen_request& seen) {
    const bool known = seen.target == "/locked";
    return std::vector<std::string>{json_reply(
        known ? 401 : 404, known ? R"({"error": {"message": "no key\ngiven"}})" : "plain text")};
  });
  http_client client = client_for(server);
  CHECK(client.get_json("/locked").error().detail ==
        server.address() + " answered 401: no key\ngiven (give --api-key or $TANDEM_API_KEY)");
  CHECK(client.get_json("/missing").error().code == errc::not_found);
  CHECK(client.get_json("/missing").error().detail == server.address() + " answered 404");
}

TEST_CASE("nobody listening, a cut answer and silence are told apart") {
  std::string freed;
  {
    const scripted_server gone([](const seen_request&) { return std::vector<std::string>{}; });
    freed = gone.address();
  }
  auto client = http_client::create(freed, "");
  REQUIRE(client);
  CHECK(client->get_json("/").error().code == errc::unavailable);
  CHECK(client->get_json("/").error().detail.find("start `tandem up`") != std::string::npos);

  const scripted_server cutting([](const seen_request&) {
    return std::vector<std::string>{"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", ""};
  });
  CHECK(client_for(cutting).get_json("/").error().detail ==
        cutting.address() + " closed the connection before its answer was whole");

  const scripted_server silent([](const seen_request&) { return std::vector<std::string>{}; });
  http_call call;
  call.target = "/";
  call.silence_max = milliseconds(30);
  CHECK(client_for(silent).exchange(call).error().code == errc::timed_out);
}

TEST_CASE("a caller who wants no more stops a silent exchange") {
  const scripted_server silent([](const seen_request&) { return std::vector<std::string>{}; });
  http_call call;
  call.target = "/";
  call.stopped = [&] { return !silent.requests().empty(); };
  CHECK(client_for(silent).exchange(call).error().code == errc::cancelled);
}

TEST_CASE("a key that would break the header is refused before it is sent") {
  CHECK_FALSE(http_client::create("http://h", "a\r\nx: y"));
  CHECK_FALSE(http_client::create("http://h", "a b"));
}

}  // namespace
