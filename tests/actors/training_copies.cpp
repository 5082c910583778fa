// A member of a group apart dies: what it had comes from the copy at its buddy, and nothing but the
// step under way is done again.
#include "tests/support/training_world.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <set>

using namespace tandem;
using namespace tandem::test;

namespace {

const std::vector<std::string> two{"cpu:0", "cpu:1"};
const std::vector<std::string> four{"cpu:0", "cpu:1", "cpu:2", "cpu:3"};
// No checkpoint but the last.
constexpr std::string_view seldom =
    R"({"slots": 4, "checkpoint_every_steps": 100, "checkpoints_kept": 2})";

// A job of which members die at a time of the test's choosing.
class dying_world {
 public:
  explicit dying_world(std::vector<std::string> devices, std::string_view own = seldom,
                       bool has_room = true)
      : store(on.open()), job(add_job(on, *store, own)) {
    fake_device_script script;
    script.training.piece_time = 5ms;
    script.training.has_room_for_copies = has_room;
    script.training.watch = [this](const train::order& order, int rank) {
      if (order.kind == train::order_kind::update && order.home == 0) updates.push_back(order.step);
      if (on_order) on_order(order, rank);
    };
    world = std::make_unique<training_world>(on, store, std::move(devices), script, true);
  }

  // A device by its name, as its node knows it.
  caf::actor device(const std::string& name) {
    const auto strong = caf::actor_cast<caf::strong_actor_ptr>(world->node);
    auto* self = dynamic_cast<actors::node_actor::stateful_pointer<actors::node_state>>(
        caf::actor_cast<caf::abstract_actor*>(strong));
    return caf::actor_cast<caf::actor>(self->state.devices.at(name).actor);
  }
  void kill(const std::string& name) { caf::anon_send_exit(device(name), caf::exit_reason::kill); }
  // Runs message by message until `there`; false: it never was.
  bool run_until(const std::function<bool()>& there) {
    for (int i = 0; i < 20000 && world->status(job) != job_status::succeeded; ++i) {
      if (there()) return true;
      if (!world->scheduler().try_run_once()) world->scheduler().advance_time(5ms);
    }
    return false;
  }
  void run_to_end() {
    world->pass(20s);
    REQUIRE(world->status(job) == job_status::succeeded);
  }
  // How often a step was updated that had been before.
  std::ptrdiff_t updated_again() const {
    const std::set<std::int64_t> once(updates.begin(), updates.end());
    return std::ssize(updates) - std::ssize(once);
  }
  // How often the step done last was saved when something had died.
  std::ptrdiff_t saved() {
    const auto events = world->events(job);
    return std::ranges::count_if(events, [](const auto& event) {
      return event.data_json.find("steps_done_again") != std::string::npos;
    });
  }
  // Whose state came from their copies, each time.
  std::vector<std::string> rescued() {
    std::vector<std::string> names;
    for (const auto& event : world->events(job)) {
      const auto data = text::value::from_json(event.data_json);
      const auto* const found = data ? data->find("from_copies") : nullptr;
      if (found == nullptr) continue;
      CHECK(event.level == "warn");
      for (const auto& name : *found->if_array()) names.push_back(*name.if_string());
    }
    return names;
  }

  disk on;
  std::shared_ptr<store::store> store;
  std::string job;
  std::vector<std::int64_t> updates;  // steps whose update of the first home was done
  std::function<void(const train::order&, int rank)> on_order;
  std::unique_ptr<training_world> world;
};

}  // namespace

TEST_CASE(
    "a member that dies in the middle of a step costs that step, however far checkpoints are") {
  const auto truth = undisturbed(seldom);
  for (const auto& devices : {two, four})
    for (const auto kind :
         {train::order_kind::accumulate, train::order_kind::reduce, train::order_kind::norm})
      for (int who = 0; who < std::ssize(devices); ++who) {
        CAPTURE(devices.size(), static_cast<int>(kind), who);
        // The last to answer: an update is under way before its death is known.
        if (kind == train::order_kind::norm && who + 1 == std::ssize(devices)) continue;
        dying_world it(devices);
        const auto& name = devices[static_cast<std::size_t>(who)];
        it.on_order = [&](const train::order& order, int rank) {
          if (order.step != 5 || order.kind != kind || rank != who) return;
          it.on_order = nullptr;
          it.kill(name);
        };
        it.run_to_end();
        CHECK(it.world->hash(it.job) == truth);
        CHECK(it.rescued() == std::vector{name});
        CHECK(it.updated_again() == 0);
        CHECK(it.world->told(it.job, "Device " + name +
                                         " died in step 5: its optimizer state comes "
                                         "from its copy on "));
        CHECK(it.world->told(it.job, "nothing but this step is done again"));
        CHECK_FALSE(it.world->told(it.job, "Going on from the newest checkpoint"));
        int told = 0;
        for (const auto& event : it.world->events(it.job)) told += event.type == "metrics";
        CHECK(told == all_steps);
      }
}

TEST_CASE("a member that dies at any message, update or not, leaves the same parameters") {
  const auto truth = undisturbed(seldom);
  std::map<bool, int> costs;  // by whether the step done was saved
  for (const auto& devices : {two, four})
    for (const auto kind : {train::order_kind::gather, train::order_kind::update})
      for (int after = 0; after < 60; after += 4) {
        CAPTURE(devices.size(), static_cast<int>(kind), after);
        dying_world it(devices);
        bool came = false;
        it.on_order = [&](const train::order& order, int) {
          came = came || (order.step == 5 && order.kind == kind);
        };
        // A gather belongs to no step.
        if (kind == train::order_kind::gather)
          REQUIRE(it.run_until([&] { return std::ssize(it.updates) == 4; }));
        else
          REQUIRE(it.run_until([&] { return came; }));
        for (int i = 0; i < after; ++i) it.world->scheduler().try_run_once();
        it.kill(devices.back());
        it.run_to_end();
        CHECK(it.world->hash(it.job) == truth);
        const bool saved = it.saved() > 0;
        ++costs[saved];
        CHECK((it.updated_again() == 0) == saved);
        CHECK(it.world->told(it.job, "Going on from the newest checkpoint") == !saved);
      }
  CHECK(costs[true] > 0);
  CHECK(costs[false] > 0);  // copies on their way are none
}

TEST_CASE("the copy is at the buddy though it serves and never saw the parameters") {
  const auto truth = undisturbed(seldom);
  dying_world it(two);
  it.world->run_to_step(it.job, 2);
  caf::anon_send(it.world->coordinator, actors::assign{"cpu:1", lease::role::serve, false});
  it.world->run_to_step(it.job, 5);
  bool began = false;
  it.on_order = [&](const train::order& order, int rank) {
    CHECK(rank == 0);
    began = began || (order.step == 7 && order.kind == train::order_kind::accumulate);
  };
  REQUIRE(it.run_until([&] { return began; }));
  it.on_order = nullptr;
  it.kill("cpu:0");
  it.run_to_end();
  CHECK(it.world->hash(it.job) == truth);
  CHECK(it.rescued() == std::vector<std::string>{"cpu:0"});
  CHECK(it.updated_again() == 0);
}

TEST_CASE("with its buddy gone, too, a member's job goes on from the newest checkpoint") {
  const auto truth = undisturbed(seldom);
  int fell_back = 0;
  for (int after = 0; after < 40; ++after) {
    CAPTURE(after);
    dying_world it(four);
    bool began = false;
    it.on_order = [&](const train::order& order, int) {
      began = began || (order.step == 6 && order.kind == train::order_kind::accumulate);
    };
    REQUIRE(it.run_until([&] { return began; }));
    it.kill("cpu:1");
    for (int i = 0; i < after; ++i) it.world->scheduler().try_run_once();
    it.kill("cpu:2");
    it.run_to_end();
    CHECK(it.world->hash(it.job) == truth);
    const bool saved = it.saved() > 0;  // before the buddy died
    CHECK((it.updated_again() == 0) == saved);
    fell_back += !saved;
  }
  CHECK(fell_back > 0);
}

TEST_CASE("two members that die at once are both in their copies") {
  const auto truth = undisturbed(seldom);
  dying_world it(four);
  bool began = false;
  it.on_order = [&](const train::order& order, int) {
    began = began || (order.step == 6 && order.kind == train::order_kind::reduce);
  };
  REQUIRE(it.run_until([&] { return began; }));
  it.kill("cpu:1");
  it.kill("cpu:3");
  it.run_to_end();
  CHECK(it.world->hash(it.job) == truth);
  CHECK(it.rescued().size() >= 1);
  CHECK(it.updated_again() == 0);
}

TEST_CASE("what is on disk already is not saved again") {
  dying_world it(two, R"({"slots": 4, "checkpoint_every_steps": 1, "checkpoints_kept": 2})");
  bool began = false;
  it.on_order = [&](const train::order& order, int) {
    began = began || (order.step == 6 && order.kind == train::order_kind::reduce);
  };
  REQUIRE(it.run_until([&] { return began; }));
  it.kill("cpu:1");
  it.run_to_end();
  CHECK(it.rescued().empty());
  CHECK(it.updated_again() == 0);
  CHECK(it.world->told(it.job, "Going on from the newest checkpoint"));
}

TEST_CASE("a device without room for a copy keeps none, and the job says what that costs") {
  const auto truth = undisturbed(seldom);
  dying_world it(two, seldom, false);
  bool began = false;
  it.on_order = [&](const train::order& order, int) {
    began = began || (order.step == 6 && order.kind == train::order_kind::reduce);
  };
  REQUIRE(it.run_until([&] { return began; }));
  it.kill("cpu:1");
  it.run_to_end();
  CHECK(it.world->told(it.job,
                       "Device cpu:1 has no room for a copy of the optimizer state of "
                       "device cpu:0"));
  CHECK(it.rescued().empty());
  CHECK(it.updated_again() == 5);
  CHECK(it.world->hash(it.job) == truth);
}

TEST_CASE("a paused job whose member dies before the step's end loses no step that was done") {
  const auto truth = undisturbed(seldom);
  dying_world it(two);
  bool began = false;
  it.on_order = [&](const train::order& order, int) {
    began = began || (order.step == 6 && order.kind == train::order_kind::accumulate);
  };
  REQUIRE(it.run_until([&] { return began; }));
  REQUIRE(it.store->change_status(it.job, {job_status::running}, job_status::paused));
  it.kill("cpu:0");
  it.world->pass(2s);
  CHECK(it.world->status(it.job) == job_status::paused);
  CHECK(it.store->list_checkpoints(it.job, "", 10)->rows.front().step == 5);
  REQUIRE(it.store->change_status(it.job, {job_status::paused}, job_status::queued));
  it.run_to_end();
  CHECK(it.world->hash(it.job) == truth);
  CHECK(it.updated_again() == 0);
}
