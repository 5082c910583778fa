// Moves of devices, in the order in which everybody hears of them.
#include "tests/support/lending_world.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

using namespace tandem;
using namespace tandem::test;
using namespace std::chrono_literals;
using lease::role;
using journal = std::vector<std::string>;

TEST_CASE("a device that comes serves at once: written, told to the device, told to who serves") {
  lending_world world({"cpu:0"});
  CHECK(world.heard() ==
        journal{"written cpu:0 serve", "takes cpu:0 serve", "granted cpu:0 serve"});
  const auto report = world.board->newest();
  REQUIRE(report);
  REQUIRE(report->devices.size() == 1);
  CHECK(report->devices[0].held.held_as == role::serve);
  CHECK(report->devices[0].memory_used == 500);
}

TEST_CASE("an idle service gives its devices to the job: shared first, then back from serving") {
  lending_world world({"cpu:0", "cpu:1"});
  world.pass(2500ms);
  world.heard();
  world.job_comes();
  CHECK(world.roles() == "shared shared");
  CHECK(world.heard() == journal{"written cpu:0 shared", "written cpu:1 shared",
                                 "takes cpu:0 shared", "takes cpu:1 shared", "changed cpu:0 shared",
                                 "changed cpu:1 shared", "may train cpu:0 shared",
                                 "may train cpu:1 shared"});
  world.pass(200ms);
  CHECK(world.roles() == "shared train");
  CHECK(world.heard() ==
        journal{"asked back cpu:1 shared", "written cpu:1 train", "takes cpu:1 train"});
  const auto held = world.leases();
  CHECK(held[1].train_since != 0);
  CHECK(held[1].train_since < held[1].at);  // what the job has ordered there stays valid
  CHECK(held[1].serve_since == 0);
}

TEST_CASE("threatened targets bring a device back, and the event says why with the numbers") {
  lending_world world({"cpu:0", "cpu:1"});
  world.pass(2500ms);
  world.job_comes();
  world.pass(200ms);
  REQUIRE(world.roles() == "shared train");
  world.heard();
  world.load({0, 0.0, 0.0, 620.0});
  CHECK(world.roles() == "shared shared");
  CHECK(world.heard() ==
        journal{"written cpu:1 shared", "takes cpu:1 shared", "granted cpu:1 shared"});
  const auto moves = world.events("move");
  CHECK(moves.back().why == "the oldest request waits 620 ms, target 500 ms");
  CHECK(moves.back().cause == "latency_first");
  CHECK(moves.back().from == role::train);
  CHECK(moves.back().held_after_us >= 0);
  CHECK(moves.back().first_work_after_us == -1);
  caf::anon_send(world.coordinator(), actors::work_began{world.leases()[1]});
  world.settle();
  CHECK(world.events("move").back().first_work_after_us >= 0);
}

TEST_CASE("when the job leaves, its devices serve again") {
  lending_world world({"cpu:0", "cpu:1"}, {.kind = lease::policy_kind::train_first});
  world.job_comes();
  REQUIRE(world.roles() == "shared train");
  world.heard();
  world.job_leaves();
  CHECK(world.roles() == "serve serve");
  CHECK(world.heard() == journal{"written cpu:0 serve", "written cpu:1 serve", "takes cpu:0 serve",
                                 "takes cpu:1 serve", "changed cpu:0 serve",
                                 "granted cpu:1 serve"});
  CHECK(world.events("job_left").size() == 1);
}

TEST_CASE("when who trains dies, its devices close the job and serve again") {
  lending_world world({"cpu:0", "cpu:1"}, {.kind = lease::policy_kind::train_first});
  world.job_comes();
  REQUIRE(world.roles() == "shared train");
  world.heard();
  caf::anon_send(world.trainer, actors::go_on{});
  world.settle();
  CHECK(world.roles() == "serve serve");
  const auto heard = world.heard();
  CHECK(std::count(heard.begin(), heard.end(), "closes cpu:0") == 1);
  CHECK(std::count(heard.begin(), heard.end(), "closes cpu:1") == 1);
}

TEST_CASE("an order by hand is answered with the lease as it is, kept, and taken back") {
  lending_world world({"cpu:0", "cpu:1"});
  world.job_comes();
  const auto before = world.assign("cpu:1", role::train);
  REQUIRE(before);
  CHECK(before->device == "cpu:1");
  CHECK(world.roles() == "serve train");
  CHECK(world.book->kept.pins == std::vector{std::pair<std::string, role>{"cpu:1", role::train}});
  world.load({0, 0.0, 0.0, 5000.0});
  CHECK(world.roles() == "serve train");
  REQUIRE(world.assign("cpu:1", std::nullopt));
  CHECK(world.roles() == "serve shared");
  CHECK(world.book->kept.pins.empty());
  CHECK(world.events("assigned").size() == 2);
}

TEST_CASE("an impossible order by hand changes nothing and says what would be allowed") {
  lending_world world({"cpu:0", "cpu:1"});
  CHECK(world.assign("cpu:7", role::serve).error().code == errc::not_found);
  CHECK(world.assign("cpu:0", role::train).error().code == errc::conflict);  // no job
  world.job_comes({"cpu:0"});
  REQUIRE(world.assign("cpu:0", role::train));
  const auto elsewhere = world.assign("cpu:1", role::train);
  REQUIRE_FALSE(elsewhere);
  CHECK(elsewhere.error().detail == "ftjob-1 is not open on cpu:1: it can train on cpu:0");
  CHECK(world.assign("cpu:0", role::idle).error().code == errc::bad_request);
  CHECK(world.roles() == "train serve");
  CHECK(world.events("assigned").size() == 1);
}

TEST_CASE("ten thousand contradictory orders end in the last one, with few moves and writes") {
  lending_world world({"cpu:0", "cpu:1"});
  world.job_comes();
  world.heard();
  world.script->writes = 0;
  caf::scoped_actor many(world.system());
  constexpr int orders = 10'000;
  int answered = 0;
  constexpr std::array roles{role::serve, role::train, role::shared};
  for (int i = 0; i < orders; ++i)
    many->send(world.coordinator(),
               actors::assign{"cpu:1", roles[static_cast<std::size_t>(i) % 3], false});
  many->send(world.coordinator(), actors::assign{"cpu:1", role::train, false});
  world.settle();
  while (many->has_next_message()) {
    many->receive([&](const lease::lease&) { ++answered; });
  }
  CHECK(answered == orders + 1);
  CHECK(world.roles() == "serve train");
  CHECK(world.script->writes <= 40);
  CHECK(world.script->pin_writes <= 20);
  CHECK(world.book->kept.pins == std::vector{std::pair<std::string, role>{"cpu:1", role::train}});
}

TEST_CASE("a wish that changes while a device is asked back takes the order back") {
  lending_world world({"cpu:0", "cpu:1"});
  world.job_comes();
  world.heard();
  world.script->gives_back = false;
  REQUIRE(world.assign("cpu:1", role::train));
  CHECK(world.heard() == journal{"asked back cpu:1 serve"});
  CHECK(world.board->newest()->devices[1].moving_to == role::train);
  REQUIRE(world.assign("cpu:1", role::shared));
  CHECK(world.heard() == journal{"changed cpu:1 serve", "written cpu:1 shared",
                                 "takes cpu:1 shared", "changed cpu:1 shared",
                                 "may train cpu:1 shared"});
  CHECK(world.roles() == "serve shared");
}

TEST_CASE("an order that is taken back too late lends the device to serving again") {
  lending_world world({"cpu:0", "cpu:1"});
  world.job_comes();
  world.script->gives_back = false;
  REQUIRE(world.assign("cpu:1", role::train));
  world.heard();
  world.gives_back("cpu:1");
  REQUIRE(world.assign("cpu:1", role::serve));
  world.answers_arrive();
  CHECK(world.heard() == journal{"changed cpu:1 serve", "granted cpu:1 serve"});
  CHECK(world.roles() == "serve serve");
}

TEST_CASE("a device that serving does not give back stays, is told once, and is asked again") {
  lending_world world({"cpu:0", "cpu:1"});
  world.job_comes();
  world.script->keeps_device = error{errc::overloaded, "3 requests fit nowhere else", ""};
  REQUIRE(world.assign("cpu:1", role::train));
  world.pass(3500ms);
  CHECK(world.leases()[1].held_as != role::train);
  REQUIRE(world.events("refused").size() == 1);
  CHECK(world.events("refused")[0].why ==
        "serving does not give it back: 3 requests fit nowhere else");
  CHECK(world.board->newest()->refusals >= 3);
  world.script->keeps_device.reset();
  world.pass(1200ms);
  CHECK(world.leases()[1].held_as == role::train);
}

TEST_CASE("a lease that cannot be written is told to nobody") {
  lending_world world({"cpu:0", "cpu:1"}, {.kind = lease::policy_kind::train_first});
  world.heard();
  world.script->store_fails = error{errc::io, "the disk is full", ""};
  const auto before = world.leases();
  world.job_comes();
  CHECK(world.leases() == before);
  CHECK(world.heard() == journal{"asked back cpu:1 serve"});
  CHECK(world.events("refused").size() == 2);
  const auto by_hand = world.assign("cpu:0", role::shared);
  REQUIRE_FALSE(by_hand);
  CHECK(by_hand.error() == error{errc::io, "the disk is full", ""});
  world.script->store_fails.reset();
  world.pass(1200ms);
  CHECK(world.roles() == "shared train");
}

TEST_CASE("a device that refuses its lease is told again, under a higher epoch") {
  lending_world world({"cpu:0"});
  world.script->device_refuses["cpu:0"] = error{errc::conflict, "epoch 3 came after epoch 70", ""};
  world.job_comes();
  world.pass(2500ms);
  CHECK(world.roles() == "serve");
  CHECK(world.events("refused").size() >= 1);
  world.script->device_refuses.clear();
  world.pass(1500ms);
  CHECK(world.roles() == "shared");
  CHECK(world.leases()[0].at > 70);
}

TEST_CASE("a device that dies in the middle of a move is forgotten, and serves when it is back") {
  lending_world world({"cpu:0", "cpu:1"});
  world.job_comes();
  world.script->gives_back = false;
  REQUIRE(world.assign("cpu:1", role::train));
  world.heard();
  const auto was = world.leases()[1];
  world.gives_back("cpu:1");
  world.die("cpu:1");
  CHECK(world.heard() == journal{"lost cpu:1 serve"});
  CHECK(world.leases().size() == 1);
  CHECK(world.book->kept.leases.size() == 1);
  CHECK(world.events("device_lost").size() == 1);
  world.come("cpu:1");
  world.settle();
  CHECK(world.roles() == "serve serve");
  CHECK(world.leases()[1].serve_since > was.at);
  // Who served answers late: it counts for nothing.
  world.heard();
  world.answers_arrive();
  CHECK(world.heard().empty());
}

TEST_CASE("when who serves dies, the job has its devices alone, and the rest are idle") {
  lending_world world({"cpu:0", "cpu:1"}, {.kind = lease::policy_kind::train_first});
  world.job_comes({"cpu:0"});
  caf::anon_send_exit(world.server, caf::exit_reason::kill);
  world.settle();
  CHECK(world.roles() == "train idle");
  world.server =
      world.house(world.system().spawn(scripted_server, world.script, world.coordinator()));
  world.settle();
  CHECK(world.roles() == "train serve");
}

TEST_CASE(
    "a coordinator that comes after one that died keeps every tenure and every order by hand") {
  lending_world world({"cpu:0", "cpu:1"});
  world.job_comes();
  REQUIRE(world.assign("cpu:1", role::train));
  REQUIRE(world.assign("cpu:0", role::shared));
  auto policy = lease::policy_settings{};
  policy.cooldown_ms = 777;
  REQUIRE(world.use(policy));
  REQUIRE(world.roles() == "shared train");
  const auto before = world.leases();
  world.heard();
  world.coordinator_dies();
  world.pass(50ms);
  world.announce_again();
  world.pass(3s);
  const auto after = world.leases();
  REQUIRE(after.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(after[i].held_as == before[i].held_as);
    CHECK(after[i].serve_since == before[i].serve_since);
    CHECK(after[i].train_since == before[i].train_since);
    CHECK(after[i].at > before[i].at);
  }
  for (const auto& line : world.heard()) CHECK(line.find("idle") == std::string::npos);
  CHECK(world.board->newest()->policy.cooldown_ms == 777);
  CHECK(world.events("coordinator").size() == 2);
  REQUIRE(world.assign("cpu:1", std::nullopt));
  world.pass(3s);
  CHECK(world.roles() == "shared train");
}

TEST_CASE("a device that does not hold what the book says begins anew at a higher epoch") {
  lending_world world({"cpu:0"});
  const auto before = world.leases()[0];
  world.coordinator_dies();
  world.pass(50ms);
  world.heard();
  world.come("cpu:0");  // another life of the device
  world.pass(100ms);
  CHECK(world.heard() == journal{"written cpu:0 serve", "takes cpu:0 serve", "written cpu:0 idle",
                                 "takes cpu:0 idle", "written cpu:0 serve", "takes cpu:0 serve",
                                 "granted cpu:0 serve"});
  CHECK(world.leases()[0].serve_since > before.at);
}

TEST_CASE(
    "a coordinator that cannot read its book lends nothing until it can, and no epoch twice") {
  lending_world world({"cpu:0"});
  const auto before = world.leases()[0];
  world.script->book_fails = error{errc::unavailable, "the store is silent", ""};
  world.coordinator_dies();
  world.pass(50ms);
  world.heard();
  world.announce_again();
  world.pass(3s);
  CHECK(world.heard().empty());
  const auto by_hand = world.assign("cpu:0", role::idle);
  REQUIRE_FALSE(by_hand);
  CHECK(by_hand.error().code == errc::unavailable);
  world.script->book_fails.reset();
  world.pass(1200ms);
  CHECK(world.heard() ==
        journal{"written cpu:0 serve", "takes cpu:0 serve", "granted cpu:0 serve"});
  CHECK(world.leases()[0].at > before.at);
  CHECK(world.leases()[0].serve_since == before.serve_since);
}

TEST_CASE("a device of the book that comes while nothing can be written is told once it can") {
  lending_world world({"cpu:0"});
  const auto before = world.leases()[0];
  world.coordinator_dies();
  world.pass(50ms);
  world.heard();
  world.script->store_fails = error{errc::unavailable, "the store is silent", ""};
  world.announce_again();
  world.pass(3s);
  CHECK(world.heard().empty());
  world.script->store_fails.reset();
  world.pass(1200ms);
  CHECK(world.heard() ==
        journal{"written cpu:0 serve", "takes cpu:0 serve", "granted cpu:0 serve"});
  CHECK(world.leases()[0].serve_since == before.serve_since);
}

TEST_CASE("a device of the book that does not come in time is lost") {
  lending_world world({"cpu:0", "cpu:1"});
  world.coordinator_dies();
  world.pass(50ms);
  world.devices.erase("cpu:1");
  world.announce_again();
  world.pass(9s);
  CHECK(world.events("device_lost").empty());
  world.pass(2s);
  REQUIRE(world.events("device_lost").size() == 1);
  CHECK(world.events("device_lost")[0].device == "cpu:1");
  CHECK(world.book->kept.leases.size() == 1);
}

TEST_CASE("a policy that cannot be is refused, one that can is decided by at once") {
  lending_world world({"cpu:0", "cpu:1"});
  world.job_comes();
  CHECK(world.use({.min_serve_devices = 0}).error().param == "min_serve_devices");
  CHECK(world.use({.min_serve_devices = 3}).error().detail ==
        "min_serve_devices: 3 of 2 devices cannot serve: give 1 to 2");
  REQUIRE(world.use({.kind = lease::policy_kind::fixed}));
  CHECK(world.roles() == "serve train");
  CHECK(world.events("policy").size() == 1);
  CHECK(world.board->newest()->policy.kind == lease::policy_kind::fixed);
}

TEST_CASE("a coordinator that nothing asks anything of sets no timer") {
  lending_world world({"cpu:0", "cpu:1"});
  world.pass(40s);  // answered requests leave their deadlines behind
  CHECK(world.scheduler().clock().schedule().empty());
}
