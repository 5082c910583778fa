// The life of a job, whatever ends it on the way.
#include "tests/sim/devices.hpp"
#include "tests/support/training_world.hpp"

using namespace tandem;
using namespace tandem::test;

TEST_CASE("a job runs from its file to a model that is served") {
  disk on;
  auto store = on.open();
  const auto job = add_job(on, *store, often);
  training_world world(on, store);
  world.run_to_end();
  const auto record = *store->find_job(job);
  CHECK(record.status == job_status::succeeded);
  CHECK(record.step == all_steps);
  CHECK(record.step_count == all_steps);
  CHECK(record.fine_tuned_model == "ft:fake:tandem::" + job);
  CHECK(record.result_files.size() == 1);
  CHECK(record.trained_tokens > 0);
  int metrics = 0;
  for (const auto& event : world.events(job)) metrics += event.type == "metrics";
  CHECK(metrics == all_steps);
  const auto checkpoints = store->list_checkpoints(job, "", 20);
  REQUIRE(checkpoints);
  REQUIRE(checkpoints->rows.size() == 2);
  CHECK(checkpoints->rows[0].step == 12);
  CHECK(checkpoints->rows[1].step == 10);
  const auto report = world.board->newest();
  REQUIRE(report);
  std::vector<std::string> names;
  for (const auto& version : report->versions) names.push_back(version.name);
  CHECK(std::count(names.begin(), names.end(), record.fine_tuned_model) == 1);
  CHECK(std::count(names.begin(), names.end(), checkpoints->rows[1].model) == 1);
  CHECK(names.size() == 3);
}

TEST_CASE("two devices make what one makes") {
  const auto one = undisturbed();
  CHECK(one.size() == 64);
  CHECK(undisturbed(often, {"cpu:0", "cpu:1"}) == one);
  CHECK(undisturbed(often, {"cpu:0", "cpu:1", "cpu:2"}) == one);  // two of the three are used
}

TEST_CASE("requests are answered while a job runs, as if it did not") {
  disk on;
  auto store = on.open();
  const auto job = add_job(on, *store, often);
  training_world world(on, store);
  for (int i = 1; i <= 8; ++i)
    world.ask(request_of(static_cast<serve::request_id>(i), {i, 7, 7}, 60));
  world.run_to_end();
  CHECK(world.status(job) == job_status::succeeded);
  for (int i = 1; i <= 8; ++i)
    CHECK(world.replies[{static_cast<serve::request_id>(i), 0}].tokens ==
          expected_tokens({i, 7, 7}, 60));
}

TEST_CASE("a device that dies in training comes back and the job's result is the same") {
  const auto truth = undisturbed();
  for (const int order : {1, 2, 3, 7, 8, 20, 33}) {
    CAPTURE(order);
    disk on;
    auto store = on.open();
    const auto job = add_job(on, *store, often);
    fake_device_script script;
    script.training.dies_at_order = order;
    training_world world(on, store, {"cpu:0"}, script);
    world.pass(20s);
    CHECK(world.devices_made == 2);
    REQUIRE(world.status(job) == job_status::succeeded);
    CHECK(world.hash(job) == truth);
    CHECK(world.told(job, "died"));
  }
}

TEST_CASE("a process that ends at any message is taken up where it was") {
  const auto truth = undisturbed();
  disk on;
  std::string job;
  int lives = 0;
  for (int messages = 40; lives < 60; ++lives, messages += 11) {
    auto store = on.open();
    if (job.empty()) job = add_job(on, *store, often);
    training_world world(on, store);
    for (int i = 0; i < messages; ++i)
      if (!world.scheduler().try_run_once()) world.scheduler().advance_time(10ms);
    if (world.status(job) == job_status::succeeded) break;
  }
  auto store = on.open();
  training_world world(on, store);
  world.run_to_end();
  REQUIRE(world.status(job) == job_status::succeeded);
  CHECK(world.hash(job) == truth);
  CHECK(lives > 3);
}

TEST_CASE("a job outlives the coordinator that dies while devices open it") {
  for (int messages = 10; messages <= 60; messages += 5) {
    CAPTURE(messages);
    disk on;
    auto store = on.open();
    const auto job = add_job(on, *store, often);
    training_world world(on, store, {"cpu:0", "cpu:1"});
    for (int i = 0; i < messages; ++i)
      if (!world.scheduler().try_run_once()) world.scheduler().advance_time(10ms);
    world.change_coordinator();
    world.pass(20s);
    REQUIRE(world.status(job) == job_status::succeeded);
  }
}

TEST_CASE("a paused job leaves its devices and goes on with the same result") {
  const auto truth = undisturbed();
  disk on;
  auto store = on.open();
  const auto job = add_job(on, *store, often);
  training_world world(on, store);
  for (const int step : {1, 5, 8}) {
    world.run_to_step(job, step);
    REQUIRE(store->change_status(job, {job_status::running}, job_status::paused));
    world.run_to_end();
    REQUIRE(world.status(job) == job_status::paused);
    CHECK(store->find_job(job)->step < all_steps);
    REQUIRE(store->change_status(job, {job_status::paused}, job_status::queued));
  }
  world.run_to_end();
  REQUIRE(world.status(job) == job_status::succeeded);
  CHECK(world.hash(job) == truth);
}

TEST_CASE("a cancelled job ends at once and the next one starts") {
  disk on;
  auto store = on.open();
  const auto first = add_job(on, *store, often);
  const auto second = add_job(on, *store, often);
  training_world world(on, store);
  world.run_to_step(first, 3);
  CHECK(store->find_job(second)->step == 0);
  REQUIRE(store->change_status(first, {job_status::running}, job_status::cancelled));
  world.run_to_end();
  CHECK(world.status(first) == job_status::cancelled);
  CHECK(store->find_job(first)->step < all_steps);
  CHECK(world.status(second) == job_status::succeeded);
}

TEST_CASE("a loss that is not finite stops the job at its last good step and says where") {
  disk on;
  auto store = on.open();
  const auto job = add_job(on, *store, often);
  fake_device_script script;
  script.training.not_finite_at = 6;
  training_world world(on, store, {"cpu:0"}, script);
  world.run_to_end();
  const auto record = *store->find_job(job);
  CHECK(record.status == job_status::failed);
  CHECK(record.error_message.find("not finite in step 6 of 12") != std::string::npos);
  CHECK(record.error_message.find("checkpoint of step 5") != std::string::npos);
  const auto newest = train::find_checkpoint(on.folder.path() / "jobs" / job / "checkpoints");
  REQUIRE(newest.path);
  CHECK(train::read_checkpoint_facts(*newest.path)->step == 5);
}

TEST_CASE("a job that does not fit fails with the device's numbers, and serving goes on") {
  disk on;
  auto store = on.open();
  const auto job = add_job(on, *store, often);
  fake_device_script script;
  script.training.open_refusal = {errc::no_memory, "9 MiB wanted, 1 MiB free; lower micro_batch",
                                  ""};
  training_world world(on, store, {"cpu:0"}, script);
  world.ask(request_of(1, {1, 2, 3}, 20));
  world.run_to_end();
  CHECK(world.status(job) == job_status::failed);
  CHECK(store->find_job(job)->error_message == script.training.open_refusal.detail);
  CHECK(world.replies[{1, 0}].tokens == expected_tokens({1, 2, 3}, 20));
}

TEST_CASE("a file with faults fails its job by line and field") {
  disk on;
  auto store = on.open();
  const auto job = add_job(on, *store, often,
                           conversation(1) + R"({"messages": [{"role": "usr", "content": "x"}]})");
  training_world world(on, store);
  world.run_to_end();
  const auto record = *store->find_job(job);
  CHECK(record.status == job_status::failed);
  CHECK(record.error_message.find("line 2") != std::string::npos);
  CHECK(record.error_message.find("messages[0].role") != std::string::npos);
}

TEST_CASE("versions are published as asked for, and one that finds no place is left out") {
  disk on;
  auto store = on.open();
  const auto job = add_job(on, *store, R"({"slots": 1, "publish_every_steps": 3})");
  fake_device_script script;
  script.training.busy_publishes = 1;
  training_world world(on, store, {"cpu:0"}, script);
  world.run_to_end();
  CHECK(world.status(job) == job_status::succeeded);
  CHECK(world.told(job, "Step 3 is not published"));
  CHECK_FALSE(world.told(job, "Step 6 is not published"));
}

TEST_CASE("after a restart published models are served again") {
  disk on;
  std::string job;
  {
    auto store = on.open();
    job = add_job(on, *store, often);
    training_world world(on, store);
    world.run_to_end();
    REQUIRE(world.status(job) == job_status::succeeded);
  }
  auto store = on.open();
  training_world world(on, store);
  world.run_to_end();
  const auto report = world.board->newest();
  REQUIRE(report);
  CHECK(report->versions.size() == 3);
}

TEST_CASE("parking waits for the step's end and a checkpoint, and the job stays as it is") {
  disk on;
  auto store = on.open();
  const auto job = add_job(on, *store, often);
  training_world world(on, store);
  world.run_to_step(job, 3);
  caf::scoped_actor self(world.system());
  auto parked = self->request(world.desk, caf::infinite, actors::park_jobs{});
  world.run_to_end();
  bool answered = false;
  parked.receive([&](const actors::jobs_parked& what) { answered = what.job == job; },
                 [](const caf::error&) {});
  CHECK(answered);
  CHECK(world.status(job) == job_status::running);
  CHECK(store->find_job(job)->step < all_steps);
  const auto newest = train::find_checkpoint(on.folder.path() / "jobs" / job / "checkpoints");
  REQUIRE(newest.path);
  CHECK(train::read_checkpoint_facts(*newest.path)->step == store->find_job(job)->step);
}

TEST_CASE("a job is not failed because its store was silent: it is tried again") {
  using namespace actors;
  disk on;
  auto store = on.open();
  const auto job = add_job(on, *store, often);
  serving_world world({"cpu:0"}, {});
  auto context = std::make_shared<train_context>();
  context->store = store;
  context->base_name = "fake";
  context->own_threads = false;
  // Its reads fail for a while, and the other connection of the store is there.
  context->make_clerk = [](caf::actor_system& in, const auto&) {
    return in.spawn([](train_clerk_actor::pointer) -> train_clerk_actor::behavior_type {
      auto tries = std::make_shared<int>(0);
      return {
          [=](const prepare_job&) -> caf::result<prepared_job> {
            if (++*tries < 40) return to_caf({errc::unavailable, "no connection", "store.url"});
            return to_caf({errc::bad_request, "the file is empty", "training_file"});
          },
          [](const save_checkpoint&) { return checkpoint_saved{}; },
          [](const write_results&) { return results_written{}; },
      };
    });
  };
  const auto desk = world.house(
      world.system().spawn(train_desk, std::shared_ptr<const train_context>(std::move(context)),
                           world.coordinator, world.serve_coordinator));
  world.pass(15s);
  CHECK(store->find_job(job)->status == job_status::validating_files);
  world.pass(10s);
  CHECK(store->find_job(job)->error_message == "the file is empty");
}

namespace {

// A desk over a store whose two connections answer as `access` says, and one queued job.
struct silent_world : serving_world {
  silent_world() : serving_world({"cpu:0"}, {}) {
    access->sure = [] { return true; };
    store::job_record record;
    record.model = "fake";
    record.status = job_status::queued;
    job = store->add_job(record)->id;
  }
  void open_desk() {
    using namespace actors;
    auto context = std::make_shared<train_context>();
    context->store = store;
    context->base_name = "fake";
    context->own_threads = false;
    context->make_clerk = [count = prepared](caf::actor_system& in, const auto&) {
      return in.spawn([count](train_clerk_actor::pointer) -> train_clerk_actor::behavior_type {
        return {
            [=](const prepare_job&) {
              ++*count;
              prepared_job ready;
              ready.settings = sim::made_up_settings(8);
              ready.training =
                  std::make_shared<const train::step_planner>(sim::made_up_data(8), ready.settings);
              return ready;
            },
            [](const save_checkpoint&) { return checkpoint_saved{}; },
            [](const write_results&) { return results_written{}; },
        };
      });
    };
    house(system().spawn(train_desk, std::shared_ptr<const train_context>(std::move(context)),
                         coordinator, serve_coordinator));
  }
  job_status status() { return store->find_job(job)->status; }

  std::shared_ptr<sim::database_access> access = std::make_shared<sim::database_access>();
  std::shared_ptr<sim::memory_store> store =
      std::make_shared<sim::memory_store>(std::make_shared<sim::memory_database>(), access);
  std::shared_ptr<int> prepared = std::make_shared<int>(0);
  std::string job;
};

}  // namespace

TEST_CASE("a job whose beginning cannot be written down waits for the store, and is not busy") {
  silent_world world;
  world.access->cut = true;  // what is written; jobs can be looked at
  world.open_desk();
  world.pass(5s);
  CHECK(*world.prepared > 1);
  CHECK(*world.prepared <= 11);  // every half second
  CHECK(world.status() == job_status::queued);
  world.access->cut = false;
  world.pass(1s);
  CHECK(world.status() == job_status::succeeded);
}

TEST_CASE("a desk that begins while the store is silent takes up what there is once it answers") {
  silent_world world;
  world.access->cut = world.access->reads_cut = true;
  world.open_desk();
  world.pass(5s);
  CHECK(*world.prepared == 0);
  world.access->cut = world.access->reads_cut = false;
  world.pass(2s);
  CHECK(world.status() == job_status::succeeded);
}
