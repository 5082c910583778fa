// Where a job lies changes while it runs: devices come, are to leave, or die.
#include "tests/support/training_world.hpp"

#include <filesystem>
#include <string_view>

using namespace tandem;
using namespace tandem::test;

namespace {

constexpr std::string_view four_slots =
    R"({"slots": 4, "checkpoint_every_steps": 100, "checkpoints_kept": 2})";

fake_device_script unhurried() {
  fake_device_script script;
  script.training.piece_time = 5ms;
  return script;
}

void join(training_world& world, const std::vector<std::string>& devices,
          const fake_device_script& script = unhurried()) {
  actors::node_options options;
  for (const auto& name : devices) options.devices.push_back({name, {0}, 1 << 20});
  options.own_threads = false;
  options.make = [script](const device_spec& spec) {
    return std::make_unique<fake_device>(spec.name, script);
  };
  world.house(world.system().spawn(actors::node, options, world.coordinator));
}

// As the roster asks when nodes are drained.
class retirement {
 public:
  retirement(training_world& world, std::vector<std::string> devices)
      : self_(world.system()),
        answer_(self_->request(caf::actor_cast<caf::actor>(world.coordinator), caf::infinite,
                               actors::retire_devices{"node2", std::move(devices)})) {}
  bool answered() {
    if (self_->mailbox().empty()) return false;
    bool well = false;
    answer_.receive([&] { well = true; }, [](const caf::error&) {});
    return well;
  }

 private:
  caf::scoped_actor self_;
  decltype(self_->request(caf::actor(), caf::infinite, actors::retire_devices{})) answer_;
};

// On how many devices the job began or went on, each time.
std::vector<int> widths(training_world& world, const std::string& job) {
  std::vector<int> list;
  for (const auto& event : world.events(job)) {
    const auto at = event.message.find(" on ");
    if (at == std::string::npos || !event.message.starts_with("Training ")) continue;
    const auto on = event.message.find(" on ", at + 1);
    list.push_back(std::stoi(event.message.substr((on == std::string::npos ? at : on) + 4)));
  }
  return list;
}

}  // namespace

TEST_CASE("a job spreads over devices that come and leaves those that go, at the end of a step") {
  const auto truth = undisturbed(four_slots);
  for (const bool apart : {false, true}) {
    CAPTURE(apart);
    disk on;
    auto store = on.open();
    const auto job = add_job(on, *store, four_slots);
    training_world world(on, store, {"cpu:0"}, unhurried(), apart);
    world.run_to_step(job, 2);
    join(world, {"cpu:1"});
    world.run_to_step(job, 4);
    CHECK(widths(world, job) == std::vector{1, 2});
    join(world, {"cpu:2", "cpu:3"});
    world.run_to_step(job, 6);
    CHECK(widths(world, job).back() == 4);
    retirement one(world, {"cpu:3"});
    world.run_to_step(job, 8);
    CHECK(one.answered());
    CHECK(widths(world, job).back() == 2);
    retirement two(world, {"cpu:1", "cpu:2"});
    world.run_to_step(job, 10);
    CHECK(two.answered());
    CHECK(widths(world, job).back() == 1);
    world.pass(20s);
    REQUIRE(world.status(job) == job_status::succeeded);
    CHECK(world.hash(job) == truth);
    CHECK_FALSE(world.told(job, "Interrupted"));
  }
}

TEST_CASE("a job lies on GPUs where there are any, and comes back when they leave") {
  const auto truth = undisturbed(four_slots);
  disk on;
  auto store = on.open();
  const auto job = add_job(on, *store, four_slots);
  training_world world(on, store, {"cpu:0", "cpu:1"}, unhurried());
  world.run_to_step(job, 2);
  join(world, {"cuda:0"});
  world.run_to_step(job, 4);
  CHECK(widths(world, job) == std::vector{2, 1});
  join(world, {"cuda:1", "cpu:2", "cpu:3"});
  world.run_to_step(job, 6);
  CHECK(widths(world, job) == std::vector{2, 1, 2});
  retirement gpus(world, {"cuda:0", "cuda:1"});
  world.run_to_step(job, 8);
  CHECK(gpus.answered());
  CHECK(widths(world, job) == std::vector{2, 1, 2, 4});
  world.pass(20s);
  REQUIRE(world.status(job) == job_status::succeeded);
  CHECK(world.hash(job) == truth);
}

TEST_CASE("a GPU that cannot take a job is left out where others can, and named where none can") {
  const auto why = GENERATE(error{errc::no_memory, "700 of 80 MiB are wanted", ""},
                            error{errc::unsupported, "devices together train alone", ""});
  auto script = unhurried();
  script.training.open_refusal = why;
  {
    disk on;
    auto store = on.open();
    const auto job = add_job(on, *store, four_slots);
    training_world world(on, store, {"cpu:0", "cpu:1"}, unhurried());
    world.run_to_step(job, 2);
    join(world, {"cuda:0"}, script);
    world.pass(20s);
    REQUIRE(world.status(job) == job_status::succeeded);
    CHECK(world.told(job, "Device cuda:0 is left out: " + why.detail));
    CHECK(widths(world, job) == std::vector{2, 2});
  }
  disk on;
  auto store = on.open();
  const auto job = add_job(on, *store, four_slots);
  training_world world(on, store, {"cuda:0"}, script);
  world.pass(20s);
  REQUIRE(world.status(job) == job_status::failed);
  CHECK(world.told(job, why.detail));
}

TEST_CASE("a job that nobody works on leaves a device in the middle of its step") {
  const auto truth = undisturbed(four_slots);
  disk on;
  auto store = on.open();
  const auto job = add_job(on, *store, four_slots);
  training_world world(on, store, {"cpu:0", "cpu:1"}, unhurried(), true);
  world.run_to_step(job, 3);
  for (const auto* const device : {"cpu:0", "cpu:1"})
    caf::anon_send(world.coordinator, actors::assign{device, lease::role::serve, false});
  world.pass(1s);
  const auto stands = store->find_job(job)->step;
  world.pass(1s);
  REQUIRE(store->find_job(job)->step == stands);
  retirement one(world, {"cpu:1"});
  world.pass(1s);
  CHECK(one.answered());
  CHECK(widths(world, job) == std::vector{2, 1});
  caf::anon_send(world.coordinator, actors::assign{"cpu:0", lease::role::idle, true});
  world.pass(20s);
  REQUIRE(world.status(job) == job_status::succeeded);
  CHECK(world.hash(job) == truth);
}

TEST_CASE("a job is as wide as before once a device that died is back") {
  disk on;
  auto store = on.open();
  const auto job = add_job(on, *store, four_slots);
  auto script = unhurried();
  script.training.dies_at_order = 9;
  training_world world(on, store, {"cpu:0", "cpu:1"}, script, true);
  world.pass(20s);
  REQUIRE(world.status(job) == job_status::succeeded);
  CHECK(world.devices_made == 3);
  CHECK(widths(world, job).front() == 2);
  CHECK(widths(world, job).back() == 2);
  CHECK(world.hash(job) == undisturbed(four_slots));
}

TEST_CASE("the checkpoint that is served stays until the next one is") {
  disk on;
  auto store = on.open();
  const auto job =
      add_job(on, *store, R"({"slots": 2, "checkpoint_every_steps": 3, "checkpoints_kept": 1})");
  training_world world(on, store, {"cpu:0", "cpu:1"}, unhurried(), true);
  world.run_to_step(job, 11);
  const auto folder = on.folder.path() / "jobs" / job / "checkpoints";
  CHECK(std::filesystem::exists(train::checkpoint_path(folder, 9)));
  CHECK(std::filesystem::exists(train::checkpoint_path(folder, 6)));  // served as 9 was written
  CHECK_FALSE(std::filesystem::exists(train::checkpoint_path(folder, 3)));
  world.pass(20s);
  REQUIRE(world.status(job) == job_status::succeeded);
}
