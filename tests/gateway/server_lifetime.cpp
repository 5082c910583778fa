// From create to the destructor: ports, draining, stopping, and responders that outlive it all.
#include "server_client.hpp"

#include <catch2/catch.hpp>

using namespace tandem::gateway;
using namespace tandem::gateway::testing;
using Catch::Contains;
using tandem::errc;

namespace {

struct held_request {
  std::shared_ptr<router> routes = basic_routes();
  promised<std::shared_ptr<responder>> held;

  held_request() {
    routes->add(make_route("GET", "/slow", [this](const auto&, const auto& to) { held.set(to); }));
  }
};

bool refuses_connections(int port) {
  try {
    client one(port);
    return false;
  } catch (const std::runtime_error&) {
    return true;
  }
}

}  // namespace

TEST_CASE("a taken port is an error that names it") {
  const auto first = started(any_port(), basic_routes());
  server_settings settings = any_port();
  settings.port = first->port();
  const auto second = server::create(settings, basic_routes());
  REQUIRE(!second);
  CHECK(second.error().code == errc::conflict);
  CHECK(second.error().param == "server.port");
  CHECK_THAT(second.error().detail,
             Contains("127.0.0.1:" + std::to_string(first->port()) + " is taken"));
}

TEST_CASE("a host that is no address is an error that names it") {
  server_settings settings = any_port();
  settings.host = "no such host";
  const auto refused = server::create(settings, basic_routes());
  REQUIRE(!refused);
  CHECK(refused.error().param == "server.host");
  CHECK_THAT(refused.error().detail, Contains("no such host"));
}

TEST_CASE("a server that was never started ends quietly") {
  const auto made = server::create(any_port(), basic_routes());
  REQUIRE(made);
  CHECK((*made)->port() > 0);
}

TEST_CASE("draining closes idle connections and lets running answers end") {
  held_request at;
  const auto running = started(any_port(), at.routes);
  client idle(running->port());
  idle.send(get("/hello"));
  CHECK(idle.read_response().status == 200);
  client busy(running->port());
  busy.send(get("/slow"));
  const auto to = at.held.wait();

  running->drain();
  CHECK(idle.rest().empty());
  CHECK(eventually([&] { return refuses_connections(running->port()); }));
  CHECK(running->counts().requests_active == 1);

  to->send(text("in peace"));
  const client_response response = busy.read_response();
  CHECK(response.body == "in peace");
  CHECK(response.headers.at("connection") == "close");
  busy.leave();
  CHECK(eventually([&] { return running->counts().connections_open == 0; }));
}

TEST_CASE("a stream that began before the drain is finished, then its connection ends") {
  held_request at;
  const auto running = started(any_port(), at.routes);
  client one(running->port());
  one.send(get("/slow") + get("/hello"));
  const auto to = at.held.wait();
  to->begin(200, "text/plain", {});
  to->write("half ");
  one.read_until("half ");
  running->drain();
  to->write("whole");
  to->end();
  CHECK_THAT(one.read_until("0\r\n\r\n"), Contains("whole"));
  CHECK(one.rest().empty());
}

TEST_CASE("stop cuts what is left and tells the handlers") {
  held_request at;
  const auto running = started(any_port(), at.routes);
  client one(running->port());
  one.send(get("/slow"));
  promised<bool> gone;
  at.held.wait()->on_gone([&] { gone.set(true); });
  running->stop();
  CHECK(gone.happened());
  CHECK(one.rest().empty());
  CHECK(running->counts().connections_open == 0);
  CHECK(running->counts().requests_active == 0);
  running->stop();   // again is harmless
  running->drain();  // and so is this
}

TEST_CASE("answers given after the server is gone do nothing") {
  held_request at;
  std::shared_ptr<responder> to;
  {
    const auto running = started(any_port(), at.routes);
    client one(running->port());
    one.send(get("/slow"));
    to = at.held.wait();
    to->begin(200, "text/plain", {});
  }
  bool told = false;
  to->on_gone([&] { told = true; });
  CHECK(told);
  to->heartbeat("\n", "text/plain");
  to->write("into the void");
  to->end();
  to->send(text("too late"));
}

TEST_CASE("a server stops under load without losing its way") {
  for (int round = 0; round < 5; ++round) {
    auto routes = basic_routes();
    std::mutex mutex;
    std::vector<std::shared_ptr<responder>> all;
    routes->add(make_route("GET", "/stream", [&](const auto&, const auto& to) {
      to->begin(200, "text/plain", {});
      const std::lock_guard lock(mutex);
      all.push_back(to);
    }));
    auto running = started(any_port(), routes);
    std::vector<std::unique_ptr<client>> clients;
    for (int index = 0; index < 40; ++index) {
      clients.push_back(std::make_unique<client>(running->port()));
      clients.back()->send(index % 2 == 0 ? get("/stream")
                                          : post("/echo", std::string(90'000, 'x')));
    }
    std::atomic<bool> stopping = false;
    std::thread writer([&] {
      while (!stopping) {
        const std::lock_guard lock(mutex);
        for (const auto& to : all) to->write("more ");
      }
    });
    CHECK(eventually([&] { return running->counts().requests_total >= 20; }));
    running.reset();
    stopping = true;
    writer.join();
  }
}

TEST_CASE("the metrics count by route, method and status") {
  const auto running = started(any_port(), basic_routes());
  client one(running->port());
  one.send(get("/hello") + get("/hello") + get("/nowhere") + post("/hello", "x"));
  for (int index = 0; index < 4; ++index) one.read_response();
  const std::string text = running->metrics();
  CHECK_THAT(text,
             Contains(R"(tandem_http_requests_total{route="/hello",method="GET",status="200"} 2)"));
  CHECK_THAT(
      text,
      Contains(R"(tandem_http_requests_total{route="unmatched",method="GET",status="404"} 1)"));
  CHECK_THAT(
      text,
      Contains(R"(tandem_http_requests_total{route="unmatched",method="POST",status="405"} 1)"));
  CHECK_THAT(text, Contains("tandem_http_connections 1\n"));
  CHECK_THAT(text, Contains("tandem_http_clients_gone_total 0\n"));
  CHECK_THAT(
      text, Contains(R"(tandem_http_request_duration_seconds_bucket{route="/hello",le="+Inf"} 2)"));
  CHECK_THAT(text, Contains(R"(tandem_http_request_duration_seconds_count{route="/hello"} 2)"));
}
