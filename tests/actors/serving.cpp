#include "tests/support/actor_world.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using namespace tandem::test;
using namespace std::chrono_literals;
using serve::finish_reason;

TEST_CASE("a request is answered with the model's own words") {
  serving_world world({"cpu:0"}, {});
  world.ask(request_of(1, {5, 6, 7}, 20));
  world.settle();
  auto& reply = world.replies[{1, 0}];
  CHECK(reply.tokens == expected_tokens({5, 6, 7}, 20));
  CHECK(reply.finish == finish_reason::length);
  CHECK(reply.finishes == 1);
  CHECK(world.board->requests_inside == 0);
}

TEST_CASE("many requests at once are each answered as if alone, on every device") {
  serving_world world({"cpu:0", "cpu:1"}, {});
  for (int i = 1; i <= 40; ++i)
    world.ask(request_of(static_cast<serve::request_id>(i), {i, i + 1, i + 2}, 5 + i % 9));
  world.settle();
  for (int i = 1; i <= 40; ++i) {
    CAPTURE(i);
    auto& reply = world.replies[{static_cast<serve::request_id>(i), 0}];
    CHECK(reply.tokens == expected_tokens({i, i + 1, i + 2}, 5 + i % 9));
    CHECK(reply.finishes == 1);
  }
  auto report = world.board->newest();
  REQUIRE(report);
  REQUIRE(report->lanes.size() == 2);
  for (const auto& lane : report->lanes) {
    CHECK(lane.steps > 0);
    CHECK(lane.counts.blocks_free == lane.counts.blocks_total);
    CHECK(lane.held.held_as == lease::role::serve);
  }
  CHECK(report->lanes[0].held.at != report->lanes[1].held.at);
}

TEST_CASE("a device that dies in a step comes back, and its requests end as if it had not") {
  fake_device_script script;
  script.dies_at_step = 7;
  serving_world world({"cpu:0"}, script);
  for (int i = 1; i <= 6; ++i)
    world.ask(request_of(static_cast<serve::request_id>(i), {i, 9, 9}, 30));
  world.settle();
  CHECK(world.devices_made == 1);
  CHECK(world.replies[{1, 0}].finishes == 0);
  world.pass(1s);
  CHECK(world.devices_made == 2);
  for (int i = 1; i <= 6; ++i) {
    CAPTURE(i);
    auto& reply = world.replies[{static_cast<serve::request_id>(i), 0}];
    CHECK(reply.tokens == expected_tokens({i, 9, 9}, 30));
    CHECK(reply.finishes == 1);
  }
  auto report = world.board->newest();
  REQUIRE(report);
  CHECK(report->devices_lost == 1);
  CHECK(report->lanes.front().ready);
}

TEST_CASE("a device that dies again and again stays down, and its requests get an error") {
  fake_device_script script;
  script.dies_at_step = 2;
  serving_world world({"cpu:0"}, script);
  world.devices_that_die = 1000;
  world.ask(request_of(1, {1, 2, 3}, 30));
  world.settle();
  world.pass(60s);
  CHECK(world.devices_made == 6);
  auto& reply = world.replies[{1, 0}];
  REQUIRE(reply.finish == finish_reason::error);
  CHECK(reply.failure->code == errc::unavailable);
  CHECK(reply.finishes == 1);
  CHECK(world.board->requests_inside == 0);
}

TEST_CASE("a request that no device survives ends in an error, and the others in their words") {
  fake_device_script script;
  script.watch = [](const serve::step_plan& plan) {
    for (const auto& chunk : plan.chunks)
      if (chunk.first_position == 0 && chunk.tokens.front() == 66)
        throw std::runtime_error("an illegal instruction");
  };
  serving_world world({"cpu:0"}, script);
  world.devices_that_die = 1000;
  world.ask(request_of(1, {66, 2, 3}, 30));
  world.ask(request_of(2, {4, 9, 9}, 30));
  world.settle();
  world.pass(60s);
  auto& reply = world.replies[{1, 0}];
  REQUIRE(reply.finish == finish_reason::error);
  CHECK(reply.failure->code == errc::unavailable);
  CHECK(reply.failure->detail.find("4 devices and more were lost") != std::string::npos);
  CHECK(world.replies[{2, 0}].tokens == expected_tokens({4, 9, 9}, 30));
  CHECK(world.replies[{2, 0}].finishes == 1);
  CHECK(world.devices_made == 5);
  CHECK(world.board->requests_inside == 0);
}

TEST_CASE("a request nobody waits for leaves the device within one step") {
  std::size_t chunks_seen = 0;
  fake_device_script script;
  script.watch = [&](const serve::step_plan& plan) { chunks_seen += plan.chunks.size(); };
  serving_world world({"cpu:0"}, script);
  world.ask(request_of(1, {1, 2, 3}, 200));
  for (int i = 0; i < 60; ++i) world.scheduler().try_run_once();
  REQUIRE(chunks_seen > 0);
  caf::anon_send(world.gateway, actors::withdraw{1});
  const auto before = chunks_seen;
  world.settle();
  CHECK(chunks_seen <= before + 2);  // one may begin while the word travels
  CHECK(world.replies[{1, 0}].finishes == 0);
  auto report = world.board->newest();
  REQUIRE(report);
  CHECK(report->lanes.front().counts.blocks_free == report->lanes.front().counts.blocks_total);
  CHECK(report->lanes.front().counts.running == 0);
}

TEST_CASE("a request whose deadline passes ends in an error that says so") {
  fake_device_script script;
  script.dies_at_step = 1;
  serving_world world({"cpu:0"}, script);
  auto request = request_of(1, {1, 2, 3}, 5);
  request.deadline =
      std::chrono::nanoseconds(world.scheduler().clock().now().time_since_epoch() + 30ms).count();
  world.ask(request);
  world.settle();
  world.pass(60ms);
  auto& reply = world.replies[{1, 0}];
  REQUIRE(reply.finish == finish_reason::error);
  CHECK(reply.failure->code == errc::timed_out);
}

TEST_CASE("a model that cannot be loaded is a failure with its reason, not a hang") {
  fake_device_script script;
  script.load_failure = {errc::no_memory, "weights take 9 MiB, the device has 1 MiB", ""};
  serving_world world({"cpu:0"}, script);
  auto report = world.board->newest();
  REQUIRE(report);
  REQUIRE(report->failures.size() == 1);
  CHECK(report->failures.front() == script.load_failure);
  world.ask(request_of(1, {1}, 5));
  world.settle();
  CHECK(world.replies[{1, 0}].failure->code == errc::unavailable);
}

TEST_CASE("several choices of one request each end once") {
  serving_world world({"cpu:0"}, {});
  auto request = request_of(1, {4, 4, 4}, 12);
  request.choices = 3;
  world.ask(request);
  world.settle();
  for (int choice = 0; choice < 3; ++choice) {
    auto& reply = world.replies[{1, choice}];
    CHECK(reply.tokens == expected_tokens({4, 4, 4}, 12));
    CHECK(reply.finishes == 1);
  }
  CHECK(world.board->requests_inside == 0);
}

TEST_CASE("a GPU actor refuses orders of an older lease") {
  actor_world world;
  auto device = world.house(world.system().spawn(
      actors::gpu, std::make_unique<fake_device>("cpu:0", fake_device_script{})));
  caf::scoped_actor self(world.system());
  auto lease_at = [](lease::epoch at) {
    return actors::take_lease{{"cpu:0", lease::role::serve, "serve fake", at, "", at, 0}};
  };
  self->send(device, lease_at(5));
  self->send(device, actors::load_model{5, {}});
  self->send(device, lease_at(4));
  self->send(device, actors::load_model{4, {}});
  auto stale = self->request(device, caf::infinite, actors::run_step{4, {}});
  world.settle();
  stale.receive(
      [](const serve::step_result&) { FAIL("a stale step ran"); },
      [](const caf::error& why) {
        CHECK(actors::from_caf(why).code == errc::conflict);
        CHECK(actors::from_caf(why).detail == "an order of serving of epoch 4 came in epoch 5");
      });
}

TEST_CASE("a lease taken away between two pieces ends the step in flight") {
  actor_world world;
  caf::scoped_actor self(world.system());
  actors::gpu_actor device;
  bool sent = false;
  fake_device_script script;
  script.between_pieces = [&] {
    if (std::exchange(sent, true)) return;
    caf::anon_send(device, actors::take_lease{{"cpu:0", lease::role::train, "job 1", 2, "", 0, 2}});
  };
  device = world.house(
      world.system().spawn(actors::gpu, std::make_unique<fake_device>("cpu:0", script)));
  self->send(device, actors::take_lease{{"cpu:0", lease::role::serve, "serve fake", 1, "", 1, 0}});
  self->send(device, actors::load_model{1, {}});
  auto step = self->request(device, caf::infinite, actors::run_step{1, {}});
  world.settle();
  step.receive([](const serve::step_result&) { FAIL("the step went on under the new lease"); },
               [](const caf::error& why) {
                 CHECK(actors::from_caf(why).detail == "the device went to job 1");
               });
}

TEST_CASE("a device in the middle of its texts finds its next step waiting") {
  // How many steps had begun before the coordinator could have answered the one before.
  std::vector<std::uint64_t> ahead;
  fake_device_script script;
  script.watch = [&](const serve::step_plan& plan) {
    for (const auto& chunk : plan.chunks)
      for (const auto token : chunk.tokens) CHECK(token >= 0);  // filled before it gets here
    if (plan.follows != 0) ahead.push_back(plan.follows);
  };
  serving_world world({"cpu:0"}, script);
  for (int i = 1; i <= 5; ++i)
    world.ask(request_of(static_cast<serve::request_id>(i), {i, 2, 3}, 20 + i));
  world.settle();
  for (int i = 1; i <= 5; ++i)
    CHECK(world.replies[{static_cast<serve::request_id>(i), 0}].tokens ==
          expected_tokens({i, 2, 3}, 20 + i));
  CHECK(ahead.size() > 10);
  auto report = world.board->newest();
  REQUIRE(report);
  CHECK(report->lanes.front().counts.blocks_free == report->lanes.front().counts.blocks_total);
}

TEST_CASE("a request that comes while a step is sent ahead starts with the step after this one") {
  std::vector<std::size_t> starts_after;  // steps that began since it was asked for
  std::size_t steps = 0;
  std::optional<std::size_t> asked_at;
  fake_device_script script;
  script.watch = [&](const serve::step_plan& plan) {
    ++steps;
    if (asked_at && !plan.starts.empty()) starts_after.push_back(steps - *asked_at);
  };
  serving_world world({"cpu:0"}, script);
  world.ask(request_of(1, {1, 2, 3}, 120));
  while (steps < 20) REQUIRE(world.scheduler().try_run_once());
  asked_at = steps;
  world.ask(request_of(2, {4, 5, 6}, 10));
  world.settle();
  REQUIRE(starts_after.size() == 1);
  CHECK(starts_after.front() <= 3);  // the words of the request travel, too
  CHECK(world.replies[{1, 0}].tokens == expected_tokens({1, 2, 3}, 120));
  CHECK(world.replies[{2, 0}].tokens == expected_tokens({4, 5, 6}, 10));
}

TEST_CASE("a device that dies with a step sent ahead costs nobody anything") {
  for (std::uint64_t dies = 2; dies < 12; ++dies) {
    CAPTURE(dies);
    fake_device_script script;
    script.dies_at_step = dies;
    serving_world world({"cpu:0"}, script);
    for (int i = 1; i <= 3; ++i)
      world.ask(request_of(static_cast<serve::request_id>(i), {i, 9, 9}, 30));
    world.settle();
    world.pass(1s);
    CHECK(world.devices_made == 2);
    for (int i = 1; i <= 3; ++i) {
      auto& reply = world.replies[{static_cast<serve::request_id>(i), 0}];
      CHECK(reply.tokens == expected_tokens({i, 9, 9}, 30));
      CHECK(reply.finishes == 1);
    }
  }
}

TEST_CASE("a device whose steps take the host's cores is sent no step ahead") {
  fake_device_script script;
  script.steps_ahead = false;
  script.watch = [&](const serve::step_plan& plan) { CHECK(plan.follows == 0); };
  serving_world world({"cpu:0"}, script);
  world.ask(request_of(1, {1, 2, 3}, 40));
  world.settle();
  CHECK(world.replies[{1, 0}].tokens == expected_tokens({1, 2, 3}, 40));
}
