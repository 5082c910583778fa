// A device that is there, and does nothing.
#include "tests/support/actor_world.hpp"

#include <catch2/catch.hpp>

#include <string>

using namespace tandem;
using namespace tandem::test;
using namespace std::chrono_literals;

namespace {

std::string last_loss(const actors::lease_board& board) {
  for (const auto& event : board.history({}, 100))
    if (event.kind == "device_lost") return event.device + ": " + event.why;
  return "none";
}

}  // namespace

TEST_CASE("a device whose step makes no progress counts as dead after ten seconds, by name") {
  fake_device_script script;
  script.sticks_at_step = 7;
  serving_world world({"cpu:0"}, script);
  world.ask(request_of(1, {5, 6, 7}, 20));
  world.pass(9s);
  CHECK(last_loss(*world.leases) == "none");
  CHECK(world.devices_made == 1);
  world.pass(5s);
  CHECK(last_loss(*world.leases).starts_with("cpu:0: step 7 of 1 rows made no progress in 10."));
  CHECK(world.devices_made == 2);  // its node has started it again
  auto& reply = world.replies[{1, 0}];
  CHECK(reply.tokens == expected_tokens({5, 6, 7}, 20));
  CHECK(reply.finishes == 1);
}

TEST_CASE("time in which the whole process stood still counts for no device") {
  fake_device_script script;
  script.sticks_at_step = 7;
  serving_world world({"cpu:0"}, script);
  world.ask(request_of(1, {5, 6, 7}, 20));
  world.pass(2s);
  world.stand_still(60s);
  world.pass(7s);
  CHECK(last_loss(*world.leases) == "none");
  world.pass(3s);
  CHECK(last_loss(*world.leases).starts_with("cpu:0: step 7 of 1 rows made no progress in 10."));
}

TEST_CASE("the first step of a device may take as long as the deadline allows") {
  fake_device_script script;
  script.sticks_at_step = 1;
  actors::serve_options options;
  options.step_deadline = 60s;
  serving_world world({"cpu:0"}, script, options);
  world.ask(request_of(1, {5, 6, 7}, 20));
  world.pass(50s);
  CHECK(world.devices_made == 1);
  world.pass(20s);
  CHECK(world.devices_made == 2);
}
