// Jobs on devices that share no memory: couriers move what orders need and what comes of them.
#include "tests/support/training_world.hpp"

#include <algorithm>
#include <map>
#include <random>

using namespace tandem;
using namespace tandem::test;

namespace {

const std::vector<std::string> two{"cpu:0", "cpu:1"};
const std::vector<std::string> four{"cpu:0", "cpu:1", "cpu:2", "cpu:3"};
constexpr std::string_view four_slots =
    R"({"slots": 4, "checkpoint_every_steps": 2, "checkpoints_kept": 2})";

// Moves a device by hand, as the moves page does.
void assign(training_world& world, const std::string& device, lease::role as) {
  caf::anon_send(world.coordinator, actors::assign{device, as, false});
}

}  // namespace

TEST_CASE("devices that share no memory make what those that do make") {
  const auto one = undisturbed();
  CHECK(undisturbed(often, {"cpu:0"}, true) == one);
  CHECK(undisturbed(often, two, true) == one);
  CHECK(undisturbed(four_slots, four, true) == undisturbed(four_slots));
}

TEST_CASE("a job on devices apart runs from its file to a model that is served") {
  disk on;
  auto store = on.open();
  const auto job = add_job(on, *store, often);
  training_world world(on, store, two, {}, true);
  world.run_to_end();
  const auto record = *store->find_job(job);
  REQUIRE(record.status == job_status::succeeded);
  CHECK(record.step == all_steps);
  const auto report = world.board->newest();
  REQUIRE(report);
  std::vector<std::string> names;
  for (const auto& version : report->versions) {
    names.push_back(version.name);
    CHECK(version.devices == two);
  }
  CHECK(std::count(names.begin(), names.end(), record.fine_tuned_model) == 1);
}

TEST_CASE("devices apart that change places at any time make the same parameters") {
  const auto truth = undisturbed(four_slots);
  std::map<train::order_kind, int> elsewhere;  // orders that another device than home's did
  for (const unsigned seed : {1U, 2U, 3U, 4U, 5U, 6U, 7U, 8U}) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    disk on;
    auto store = on.open();
    const auto job = add_job(on, *store, four_slots);
    fake_device_script script;
    script.training.piece_time = 5ms;
    script.training.watch = [&](const train::order& order, int rank) {
      elsewhere[order.kind] += order.home != rank;
    };
    training_world world(on, store, four, script, true);
    for (int i = 0; i < 4000 && world.status(job) != job_status::succeeded; ++i) {
      for (auto messages = random() % 30; messages > 0; --messages)
        world.scheduler().try_run_once();
      if (random() % 3 == 0) world.scheduler().advance_time(5ms);
      if (random() % 10 == 0)
        assign(world, four[random() % 4],
               random() % 2 == 0 ? lease::role::serve : lease::role::train);
    }
    for (const auto& device : four)
      caf::anon_send(world.coordinator, actors::assign{device, lease::role::idle, true});
    world.pass(20s);
    REQUIRE(world.status(job) == job_status::succeeded);
    CHECK(world.hash(job) == truth);
  }
  for (const auto kind : {train::order_kind::accumulate, train::order_kind::reduce,
                          train::order_kind::norm, train::order_kind::update})
    CHECK(elsewhere[kind] > 10);
}

TEST_CASE("a device apart that dies in training comes back and the job's result is the same") {
  const auto truth = undisturbed();
  for (const int order : {1, 3, 7, 8, 20}) {
    CAPTURE(order);
    disk on;
    auto store = on.open();
    const auto job = add_job(on, *store, often);
    fake_device_script script;
    script.training.dies_at_order = order;
    training_world world(on, store, two, script, true);
    world.pass(20s);
    CHECK(world.devices_made == 3);
    REQUIRE(world.status(job) == job_status::succeeded);
    CHECK(world.hash(job) == truth);
    CHECK(world.told(job, "died"));
  }
}

TEST_CASE("a courier ends with its device, even one that died before the courier first ran") {
  for (const bool runs_before : {true, false}) {
    CAPTURE(runs_before);
    actor_world world;
    const auto memory = std::make_shared<fake_trainer_memory>();
    auto device = world.system().spawn(
        actors::gpu, std::make_unique<fake_device>("cpu:0", fake_device_script{}));
    world.settle();
    const auto courier =
        world.system().spawn(actors::courier, std::shared_ptr<train::trainer_memory>(memory),
                             caf::actor_cast<caf::strong_actor_ptr>(device));
    if (runs_before) world.settle();
    caf::scoped_actor self(world.system());
    self->monitor(courier);
    caf::anon_send_exit(device, caf::exit_reason::kill);
    device = nullptr;
    world.settle();
    bool ended = false;
    self->receive([&](const caf::down_msg&) { ended = true; }, caf::after(0s) >> [] {});
    CHECK(ended);
  }
}
