// /admin/events over real sockets.
#include "gateway/leases/routes.hpp"
#include "server_client.hpp"
#include "tests/support/lease_world.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using namespace tandem::test;
using gateway::testing::client;
using gateway::testing::eventually;
using lease::role;

namespace {

struct streaming_world {
  std::shared_ptr<actors::lease_board> board = std::make_shared<actors::lease_board>();
  std::shared_ptr<gateway::router> routes = std::make_shared<gateway::router>();
  std::function<void()> end_streams =
      gateway::add_lease_routes(*routes, board, std::make_shared<fake_lease_control>());
  std::unique_ptr<gateway::server> running =
      gateway::testing::started(gateway::testing::any_port(), routes);

  std::unique_ptr<client> follow(const std::string& query, const std::string& headers = {},
                                 int receive_buffer_bytes = 0) {
    auto one = std::make_unique<client>(running->port(), receive_buffer_bytes);
    one->send(gateway::testing::get("/admin/events" + query, headers));
    const auto head = one->read_until("\r\n\r\n");
    CHECK(head.find("200") != std::string::npos);
    return one;
  }
  void happens(int times = 1, const std::string& why = "nobody waits") {
    for (int i = 0; i < times; ++i) {
      auto event = move_of("cpu:0", role::serve, role::train, 2);
      event.why = why;
      board->add(event);
    }
  }
};

}  // namespace

TEST_CASE("a stream of lease events tells what happens from now on, with kind and number") {
  streaming_world world;
  world.happens(2);
  const auto one = world.follow("");
  world.happens();
  const auto told = one->read_until("\n\n");
  CHECK(told.find("id: 3\n") != std::string::npos);
  CHECK(told.find("event: move\n") != std::string::npos);
  CHECK(told.find("data: {\"sequence\":3,") != std::string::npos);
  CHECK(told.find("id: 2\n") == std::string::npos);
}

TEST_CASE("a stream goes on behind the event it is asked for") {
  streaming_world world;
  world.happens(5);
  CHECK(world.follow("?after=3")->read_until("\n\n").find("id: 4\n") != std::string::npos);
  CHECK(world.follow("?after=1", "last-event-id: 4\r\n")->read_until("\n\n").find("id: 5\n") !=
        std::string::npos);
  CHECK(world.follow("?after=0")->read_until("\n\n").find("id: 1\n") != std::string::npos);
  // A number from before a restart: all that is kept is new.
  CHECK(world.follow("?after=900")->read_until("\n\n").find("id: 1\n") != std::string::npos);
  client bad(world.running->port());
  bad.send(gateway::testing::get("/admin/events?after=x"));
  CHECK(bad.read_response().status == 400);
}

TEST_CASE("all that is kept arrives in order, whatever fits at once") {
  streaming_world world;
  world.happens(1000);
  const auto one = world.follow("?after=0");
  for (int i = 1; i <= 1000; ++i) one->read_until("id: " + std::to_string(i) + "\n");
}

TEST_CASE("streams of lease events end when the server is about to stop") {
  streaming_world world;
  const auto one = world.follow("");
  world.happens();
  one->read_until("id: 1\n");
  world.end_streams();
  one->read_until("0\r\n\r\n");
  world.follow("")->read_until("0\r\n\r\n");
  CHECK(eventually([&] { return world.running->counts().requests_active == 0; }));
}

TEST_CASE("who reads slower than the board forgets is told so and cut off, others go on") {
  streaming_world world;
  const std::string much(1000, 'x');
  world.happens();
  const auto slow = world.follow("?after=0", {}, 4096);
  slow->read_until("id: 1\n");
  // Far more than sockets hold, while nobody reads: what waits for it is one piece, not all.
  for (int i = 0; i < 12; ++i)
    world.happens(static_cast<int>(actors::lease_board::events_kept), much);
  const auto rest = slow->read_until("0\r\n\r\n");
  CHECK(rest.find("event: error\n") != std::string::npos);
  CHECK(rest.find("read too slowly") != std::string::npos);
  const auto quick = world.follow("");
  world.happens(1, "the last");
  CHECK(quick->read_until("\n\n").find("the last") != std::string::npos);
}
