// Devices in processes of their own, and nodes that come and go.
#include "actors/roster.hpp"
#include "tests/support/actor_world.hpp"

#include <catch2/catch.hpp>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

using namespace tandem;
using namespace tandem::test;
using namespace std::chrono_literals;
using actors::node_report;

namespace {

// Processes that a test ends when it likes.
struct fake_processes {
  struct one {
    std::function<void(std::uint64_t, std::string)> ended;
    std::uint64_t process = 0;
    bool asked = false;
  };
  std::map<std::string, std::vector<std::shared_ptr<one>>> started;  // by device, newest last
  std::optional<error> refusal;
  std::uint64_t processes = 100;

  class handle final : public actors::worker {
   public:
    explicit handle(std::shared_ptr<one> which) : which_(std::move(which)) {}
    ~handle() override { which_->asked = true; }
    void ask_to_end() override { which_->asked = true; }
    std::uint64_t process_id() const override { return which_->process; }

   private:
    std::shared_ptr<one> which_;
  };

  actors::worker_factory factory() {
    return [this](const device_spec& device, std::function<void(std::uint64_t, std::string)> ended)
               -> result<std::unique_ptr<actors::worker>> {
      if (refusal) return *refusal;
      auto made = std::make_shared<one>(one{std::move(ended), ++processes, false});
      started[device.name].push_back(made);
      return std::unique_ptr<actors::worker>(std::make_unique<handle>(made));
    };
  }
};

struct process_world : actor_world {
  process_world() {
    actors::node_options options;
    options.devices = {{"cpu:0", {0}, 1 << 20}, {"cpu:1", {1}, 1 << 20}};
    options.start_worker = processes.factory();
    options.restarts_max = 3;
    options.gave_up = [this](const std::string& device, const error& why) {
      given_up.push_back(device + ": " + why.detail);
    };
    actors::coordinator_options lending;
    lending.board = leases;
    coordinator = house(system().spawn(actors::coordinator, lending));
    node = house(system().spawn(actors::node, std::move(options), coordinator));
    settle();
  }
  void kill(const std::string& device) {
    const auto& newest = *processes.started.at(device).back();
    newest.ended(newest.process, "killed by signal 9 (Killed)");
    settle();
  }

  fake_processes processes;
  std::vector<std::string> given_up;
  std::shared_ptr<actors::lease_board> leases = std::make_shared<actors::lease_board>();
  actors::coordinator_actor coordinator;
  actors::node_actor node;
};

std::string last_loss(const actors::lease_board& board) {
  for (const auto& event : board.history({}, 100))
    if (event.kind == "device_lost") return event.why;
  return "none";
}

// A node of two devices beside the head's one, as far as the roster sees.
struct roster_world : serving_world {
  roster_world() : serving_world({"cpu:0", "node2/cpu:0", "node2/cpu:1"}, {}) {
    actors::roster_options options;
    options.head.node = "head";
    options.head.is_head = true;
    options.keeper = caf::actor_cast<caf::actor>(coordinator);
    options.board = nodes;
    options.events = leases;
    options.store = "store";
    options.epoch = 4;
    roster = house(system().spawn(actors::roster, std::move(options), coordinator));
    settle();
  }
  caf::actor member() {
    return house(system().spawn([this](caf::event_based_actor*) -> caf::behavior {
      return {[this](const actors::let_go&) { ++let_go; },
              [this](const actors::heads_changed& news) { heads = news.others; }};
    }));
  }
  struct lead {
    std::string store;
    std::int64_t epoch;
  };
  std::optional<error> join(const std::string& name, std::vector<std::string> devices,
                            const caf::actor& as, const lead& seen = {"", 0}) {
    std::optional<error> refused;
    house(system().spawn([&](caf::event_based_actor* self) {
      self->request(roster, caf::infinite,
                    actors::join_cluster{name, "10.0.0.2:7000", std::move(devices), false, 0, as,
                                         seen.store, seen.epoch})
          .then([this](const actors::cluster_joined& in) { heads = in.heads; },
                [&](const caf::error& why) { refused = actors::from_caf(why); });
    }));
    settle();
    return refused;
  }
  std::optional<result<void>> drain(const std::string& name) {
    auto answer = std::make_shared<std::optional<result<void>>>();
    caf::anon_send(roster, actors::submit_drain{name, [answer](const result<void>& done) {
                                                  answer->emplace(done);
                                                }});
    pass(1s);
    return *answer;
  }
  const node_report* find(const std::string& name) {
    shown = nodes->newest();
    for (const auto& one : shown)
      if (one.node == name) return &one;
    return nullptr;
  }

  std::shared_ptr<actors::node_board> nodes = std::make_shared<actors::node_board>();
  actors::roster_actor roster;
  std::vector<node_report> shown;
  std::vector<std::string> heads;  // as members were told
  int let_go = 0;
};

const std::vector<std::string> two_devices = {"node2/cpu:0", "node2/cpu:1"};

}  // namespace

TEST_CASE("a worker that dies is started again, later each time, and stays down after the limit") {
  process_world world;
  auto& of_cpu_0 = world.processes.started["cpu:0"];
  CHECK(of_cpu_0.size() == 1);
  for (std::size_t death = 1; death <= 3; ++death) {
    CAPTURE(death);
    world.kill("cpu:0");
    world.pass(std::chrono::milliseconds(100 << (death - 1)) - 10ms);
    CHECK(of_cpu_0.size() == death);
    world.pass(10ms);
    CHECK(of_cpu_0.size() == death + 1);
  }
  world.kill("cpu:0");
  world.pass(1min);
  CHECK(of_cpu_0.size() == 4);
  CHECK(world.given_up == std::vector<std::string>{"cpu:0: killed by signal 9 (Killed)"});
  CHECK(world.processes.started["cpu:1"].size() == 1);
}

TEST_CASE("the news of a worker that was replaced meanwhile counts for nothing") {
  process_world world;
  const auto first = world.processes.started["cpu:0"].front();
  world.kill("cpu:0");
  world.pass(100ms);
  first->ended(first->process, "killed by signal 9 (Killed)");
  world.pass(1s);
  CHECK(world.processes.started["cpu:0"].size() == 2);
}

TEST_CASE("a worker that falls silent is ended and started again, unless it has ended by itself") {
  process_world world;
  actors::roster_options options;
  options.head.node = "head";
  options.keeper = caf::actor_cast<caf::actor>(world.coordinator);
  const auto roster =
      world.house(world.system().spawn(actors::roster, std::move(options), world.coordinator));
  caf::anon_send(roster, actors::watch_workers{"head", caf::actor_cast<caf::actor>(world.node)});
  const auto join = [&](const std::string& device) {
    const auto member = world.house(world.system().spawn(
        [](caf::event_based_actor*) -> caf::behavior { return {[](const actors::let_go&) {}}; }));
    caf::anon_send(roster, actors::join_cluster{"head",
                                                "127.0.0.1:1",
                                                {device},
                                                true,
                                                world.processes.started.at(device).back()->process,
                                                member,
                                                "",
                                                0});
    world.settle();
    return member;
  };
  const auto silent = join("cpu:0");
  const auto dead = join("cpu:1");
  const auto first = world.processes.started["cpu:0"].front();
  caf::anon_send_exit(silent, caf::exit_reason::kill);
  caf::anon_send_exit(dead, caf::exit_reason::kill);
  world.kill("cpu:1");
  world.pass(400ms);
  CHECK_FALSE(first->asked);
  world.pass(5s);
  CHECK(first->asked);
  CHECK(world.processes.started["cpu:0"].size() == 2);
  CHECK(world.processes.started["cpu:1"].size() == 2);
}

TEST_CASE("a worker that cannot be started is tried again, up to the limit") {
  process_world world;
  world.processes.refusal = error{errc::io, "no processes left", ""};
  world.kill("cpu:0");
  world.pass(10s);
  CHECK(world.given_up == std::vector<std::string>{"cpu:0: no processes left"});
}

TEST_CASE("workers end with their node") {
  process_world world;
  caf::anon_send_exit(world.node, caf::exit_reason::user_shutdown);
  world.settle();
  for (const auto& [device, processes] : world.processes.started) CHECK(processes.back()->asked);
}

TEST_CASE("a node ends when its devices have ended: whoever sees it gone may start them anew") {
  serving_world world({"cpu:0", "cpu:1"}, {});
  std::vector<std::string> ended;
  const auto note_end = [&](const auto& who, const std::string& as) {
    caf::actor_cast<caf::abstract_actor*>(who)->attach_functor(
        [&ended, as](const caf::error&) { ended.push_back(as); });
  };
  auto* node = dynamic_cast<actors::node_actor::stateful_pointer<actors::node_state>>(
      caf::actor_cast<caf::abstract_actor*>(world.node));
  REQUIRE(node);
  for (const auto& [name, device] : node->state.devices) note_end(device.actor, name);
  note_end(world.node, "node");
  caf::anon_send_exit(world.node, caf::exit_reason::user_shutdown);
  world.settle();
  REQUIRE(ended.size() == 3);
  CHECK(ended.back() == "node");
}

TEST_CASE("a device's loss says how its process ended, whichever news comes first") {
  fake_device_script script;
  script.dies_at_step = 3;
  serving_world world({"cpu:0", "cpu:1"}, script);
  caf::anon_send(world.coordinator, actors::device_ended{"cpu:1", "exit status 3: no memory"});
  world.settle();
  CHECK(last_loss(*world.leases) == "exit status 3: no memory");

  world.ask(request_of(1, {5, 6, 7}, 20));
  world.settle();
  const auto before = last_loss(*world.leases);
  CHECK(before != "exit status 3: no memory");
  CHECK(before != "killed by signal 9 (Killed)");
  caf::anon_send(world.coordinator, actors::device_ended{"cpu:0", "killed by signal 9 (Killed)"});
  world.settle();
  CHECK(last_loss(*world.leases) == "killed by signal 9 (Killed)");
  caf::anon_send(world.coordinator, actors::device_ended{"cpu:0", "exit status 1: no memory"});
  world.settle();  // of one that did not come up: no loss
  CHECK(last_loss(*world.leases) == "killed by signal 9 (Killed)");
}

TEST_CASE(
    "a node that is drained hands its requests over and is let go once its devices are idle") {
  roster_world world;
  REQUIRE_FALSE(world.join("node2", two_devices, world.member()));
  for (int i = 1; i <= 12; ++i)
    world.ask(request_of(static_cast<serve::request_id>(i), {i, 9, 9}, 200));
  const auto drained = world.drain("node2");
  REQUIRE(drained);
  CHECK(*drained);
  CHECK(world.let_go == 1);
  REQUIRE(world.find("node2"));
  CHECK(world.find("node2")->now == node_report::state::draining);
  const auto report = world.leases->newest();
  REQUIRE(report);
  for (const auto& device : report->devices)
    CHECK(device.held.held_as ==
          (device.held.device == "cpu:0" ? lease::role::serve : lease::role::idle));
  world.pass(30s);
  for (int i = 1; i <= 12; ++i) {
    CAPTURE(i);
    auto& reply = world.replies[{static_cast<serve::request_id>(i), 0}];
    CHECK(reply.tokens == expected_tokens({i, 9, 9}, 200));
    CHECK(reply.finishes == 1);
  }
}

TEST_CASE("a node is listed while it is in, and that it left is remembered") {
  roster_world world;
  const auto member = world.member();
  REQUIRE_FALSE(world.join("node2", two_devices, member));
  REQUIRE(world.find("node2"));
  CHECK(world.find("node2")->now == node_report::state::up);
  CHECK(world.find("node2")->address == "10.0.0.2:7000");
  caf::anon_send_exit(member, caf::exit_reason::kill);
  world.settle();
  CHECK(world.find("node2")->now == node_report::state::left);
  REQUIRE_FALSE(world.join("node2", two_devices, world.member()));
  CHECK(world.find("node2")->now == node_report::state::up);
  CHECK(world.shown.size() == 2);
}

TEST_CASE("who may not join or be drained is told why") {
  roster_world world;
  REQUIRE_FALSE(world.join("node2", two_devices, world.member()));
  const auto taken = world.join("node2", two_devices, world.member());
  REQUIRE(taken);
  CHECK(taken->code == errc::conflict);
  CHECK(taken->detail.find("--name") != std::string::npos);
  CHECK(world.join("head", {"head/cpu:0"}, world.member())->code == errc::conflict);
  CHECK(world.join("a/b", {}, world.member())->code == errc::bad_request);
  CHECK(world.join("", {}, world.member())->code == errc::bad_request);
  CHECK(world.join("node3", {"cpu:0"}, world.member())->code == errc::bad_request);
  CHECK(world.drain("head")->error().code == errc::conflict);
  CHECK(world.drain("node9")->error().code == errc::not_found);
}

TEST_CASE("members hear which heads stand by, those that come later when they join") {
  roster_world world;
  caf::anon_send(world.roster, actors::heads_changed{true, {"10.0.0.9:7000"}});
  world.settle();
  REQUIRE_FALSE(world.join("node2", two_devices, world.member()));
  CHECK(world.heads == std::vector<std::string>{"10.0.0.9:7000"});
  caf::anon_send(world.roster, actors::heads_changed{true, {"10.0.0.8:7000"}});
  world.settle();
  CHECK(world.heads == std::vector<std::string>{"10.0.0.8:7000"});
}

TEST_CASE("a head that is not sure of its lead lets nobody in, nor does one that others followed") {
  roster_world world;
  caf::anon_send(world.roster, actors::heads_changed{false, {}});
  world.settle();
  CHECK(world.join("node2", two_devices, world.member())->code == errc::unavailable);
  caf::anon_send(world.roster, actors::heads_changed{true, {}});
  world.settle();
  const auto later = world.join("node2", two_devices, world.member(), {"store", 5});
  REQUIRE(later);
  CHECK(later->detail == "this head led in epoch 4, another one leads since (epoch 5)");
  REQUIRE_FALSE(world.join("node2", two_devices, world.member(), {"another store", 5}));
  REQUIRE_FALSE(world.join("node3", {}, world.member(), {"store", 4}));
}
