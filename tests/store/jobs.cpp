#include "tests/support/store_world.hpp"

#include <catch2/catch.hpp>

#include <set>

using namespace tandem;
using namespace tandem::store;
using tandem::test::store_world;

namespace {

const std::vector<job_status> every_status{
    job_status::validating_files, job_status::queued, job_status::running,  job_status::paused,
    job_status::succeeded,        job_status::failed, job_status::cancelled};

std::vector<std::string> messages_of(store_world& world, const std::string& job) {
  std::vector<std::string> messages;
  auto events = world->events_since(job, 0, 100);
  REQUIRE(events);
  for (const auto& event : *events) messages.push_back(event.message);
  return messages;
}

}  // namespace

TEST_CASE("a job comes back as it was given, with an id and a time") {
  store_world world;
  auto file = world.file();
  job_record job;
  job.model = "base";
  job.training_file = file.id;
  job.validation_file = file.id;
  job.suffix = "mine";
  job.seed = -3;
  job.metadata_json = R"({"team":"a"})";
  job.hyperparameters_json = R"({"n_epochs":"auto"})";
  job.own_json = R"({"rank":8})";
  job.integrations_json = "[]";
  auto added = world->add_job(job);
  REQUIRE(added);
  CHECK(added->id.size() == std::string("ftjob-").size() + 24);
  CHECK(added->id.starts_with("ftjob-"));
  CHECK(added->created_at > 1'700'000'000);
  auto found = world->find_job(added->id);
  REQUIRE(found);
  CHECK(*found == *added);
  job.id = added->id;
  job.created_at = added->created_at;
  CHECK(*found == job);
}

TEST_CASE("only an exact id finds a job") {
  store_world world;
  auto id = world.job().id;
  for (std::string other : {id.substr(0, id.size() - 1), id + "0", std::string(), std::string("%"),
                            "FTJOB-" + id.substr(6), id + std::string(1, '\0')}) {
    INFO(other);
    auto found = world->find_job(other);
    REQUIRE(!found);
    CHECK(found.error().code == errc::not_found);
  }
}

TEST_CASE("a state changes from a named state only, and a late writer never undoes a cancel") {
  store_world world;
  auto job = world.job_in(job_status::running);
  REQUIRE(world->change_status(job.id, {job_status::queued, job_status::running},
                               job_status::cancelled));
  auto late = world->change_status(job.id, {job_status::running}, job_status::succeeded);
  REQUIRE(!late);
  CHECK(late.error().code == errc::conflict);
  CHECK(late.error().detail == job.id + " has ended already: it is cancelled");
  CHECK(!world->fail_job(job.id, {errc::internal, "late", {}}));
  CHECK(!world->set_progress(job.id, {1, 2, 3, 4}));
  CHECK(!world->set_model(job.id, "ft:late"));
  CHECK(!world->set_settings(job.id, "{}"));
  CHECK(!world->add_result_file(job.id, "file-late"));
  auto found = world->find_job(job.id);
  REQUIRE(found);
  CHECK(found->status == job_status::cancelled);
  CHECK(found->fine_tuned_model.empty());
  CHECK(found->step == 0);
}

TEST_CASE("every pair of states: a move happens exactly when its start is named") {
  store_world world;
  for (auto from : every_status)
    for (auto to : every_status) {
      if (to == job_status::failed) continue;
      auto job = world.job_in(from);
      std::vector<job_status> others;
      for (auto status : every_status)
        if (status != from) others.push_back(status);
      auto refused = world->change_status(job.id, others, to);
      REQUIRE(!refused);
      CHECK(refused.error().code == errc::conflict);
      CHECK(*world->find_job(job.id) == job);
      if (is_final(from)) continue;
      auto moved = world->change_status(job.id, {from}, to);
      REQUIRE(moved);
      CHECK(moved->status == to);
      CHECK((moved->finished_at != 0) == is_final(to));
      CHECK(*world->find_job(job.id) == *moved);
    }
}

TEST_CASE("a state that ended stays, even when a caller names it as the start") {
  store_world world;
  for (auto from : every_status) {
    if (!is_final(from)) continue;
    auto job = world.job_in(from);
    CHECK(!world->change_status(job.id, every_status, job_status::running));
  }
}

TEST_CASE("a failed job says why in words, in a code and in an event") {
  store_world world;
  auto job = world.job_in(job_status::running);
  auto failed = world->fail_job(
      job.id, {errc::bad_file, "line 3, messages[0].role: missing", "training_file"});
  REQUIRE(failed);
  CHECK(failed->status == job_status::failed);
  CHECK(failed->error_code == "invalid_training_file");
  CHECK(failed->error_message == "line 3, messages[0].role: missing");
  CHECK(failed->error_param == "training_file");
  CHECK(failed->finished_at != 0);
  auto events = world->list_events(job.id, {}, 1);
  REQUIRE(events);
  CHECK(events->rows.at(0).level == "error");
  CHECK(events->rows.at(0).message == failed->error_message);
}

TEST_CASE("each change of state is told in an event") {
  store_world world;
  auto job = world.job_in(job_status::queued);
  using enum job_status;
  REQUIRE(world->change_status(job.id, {queued}, running));
  REQUIRE(world->set_progress(job.id, {4, 10, 400, 0}));
  REQUIRE(world->change_status(job.id, {running}, paused));
  REQUIRE(world->change_status(job.id, {paused}, queued));
  REQUIRE(world->change_status(job.id, {queued}, running));
  REQUIRE(world->change_status(job.id, {running}, succeeded));
  CHECK(messages_of(world, job.id) ==
        std::vector<std::string>{
            "Created fine-tuning job: " + job.id, "Files validated, moving job to queued state",
            "Fine-tuning job started", "Fine-tuning job paused after step 4 of 10",
            "Fine-tuning job moved to queued state after step 4 of 10",
            "Fine-tuning job goes on after step 4 of 10", "The job has successfully completed"});
}

TEST_CASE("a known idempotency key gives the job made with it") {
  store_world world;
  auto first = world.job("key-1");
  auto again = world.job("key-1");
  CHECK(again == first);
  CHECK(world.job("key-2").id != first.id);
  CHECK(world.job().id != world.job().id);
  auto jobs = world->list_jobs({}, 100);
  REQUIRE(jobs);
  CHECK(jobs->rows.size() == 4);
}

TEST_CASE("a job whose file is not there is refused by the name of its field") {
  store_world world;
  job_record job;
  job.training_file = "file-none";
  auto refused = world->add_job(job);
  REQUIRE(!refused);
  CHECK(refused.error().code == errc::not_found);
  CHECK(refused.error().param == "training_file");
  job.training_file = world.file().id;
  job.validation_file = "file-gone";
  refused = world->add_job(job);
  REQUIRE(!refused);
  CHECK(refused.error().param == "validation_file");
}

TEST_CASE("progress, settings, model and result files of a job are kept") {
  store_world world;
  auto job = world.job_in(job_status::running);
  REQUIRE(world->set_progress(job.id, {3, 12, 999, 1'800'000'000}));
  REQUIRE(world->set_settings(job.id, R"({"rank":16})"));
  REQUIRE(world->set_model(job.id, "ft:base:org::" + job.id));
  auto results = world.file("step,train_loss\n", "fine-tune-results").id;
  REQUIRE(world->add_result_file(job.id, results));
  REQUIRE(world->add_result_file(job.id, results));  // again after a crash
  world.close();
  world.open();
  auto found = world->find_job(job.id);
  REQUIRE(found);
  CHECK(found->step == 3);
  CHECK(found->step_count == 12);
  CHECK(found->trained_tokens == 999);
  CHECK(found->estimated_finish == 1'800'000'000);
  CHECK(found->settings_json == R"({"rank":16})");
  CHECK(found->fine_tuned_model == "ft:base:org::" + job.id);
  CHECK(found->result_files == std::vector<std::string>{results});
}

TEST_CASE("jobs come in pages, newest first, and the last page says so") {
  store_world world;
  std::vector<std::string> made;
  for (int i = 0; i < 7; ++i) made.insert(made.begin(), world.job().id);
  for (int limit : {1, 2, 3, 6, 7, 8}) {
    std::vector<std::string> seen;
    std::string after;
    for (;;) {
      auto page = world->list_jobs(after, limit);
      REQUIRE(page);
      for (const auto& job : page->rows) seen.push_back(job.id);
      CHECK(page->has_more == (seen.size() < made.size()));
      if (!page->has_more) break;
      REQUIRE(static_cast<int>(page->rows.size()) == limit);
      after = seen.back();
    }
    CHECK(seen == made);
  }
  auto lost = world->list_jobs("ftjob-none", 5);
  REQUIRE(!lost);
  CHECK(lost.error().code == errc::bad_request);
  CHECK(lost.error().param == "after");
}

TEST_CASE("jobs are found by their metadata") {
  store_world world;
  auto add = [&](std::string metadata) {
    job_record job;
    job.training_file = world.file().id;
    job.metadata_json = std::move(metadata);
    auto added = world->add_job(job);
    REQUIRE(added);
    return added->id;
  };
  auto both = add(R"({"team":"a","stage":"x.\"y"})");
  auto one = add(R"({"team":"a"})");
  auto other = add(R"({"team":"b"})");
  auto none = add("null");
  auto ids = [&](const job_filter& which) {
    auto page = world->list_jobs({}, 10, which);
    REQUIRE(page);
    std::set<std::string> found;
    for (const auto& job : page->rows) found.insert(job.id);
    return found;
  };
  CHECK(ids({{{"team", "a"}}, false}) == std::set{both, one});
  CHECK(ids({{{"team", "a"}, {"stage", "x.\"y"}}, false}) == std::set{both});
  CHECK(ids({{{"team", "c"}}, false}).empty());
  CHECK(ids({{}, true}) == std::set{none});
  CHECK(ids({}) == std::set{both, one, other, none});
}

TEST_CASE("unfinished jobs come oldest first") {
  store_world world;
  std::vector<std::string> open;
  for (auto status : every_status) {
    auto id = world.job_in(status).id;
    if (!is_final(status)) open.push_back(id);
  }
  std::vector<std::string> found;
  for (const auto& job : world->unfinished_jobs()) found.push_back(job.id);
  CHECK(found == open);
}

TEST_CASE("states and their names are one to one", "[pure]") {
  for (auto status : every_status) CHECK(job_status_from(name_of(status)) == status);
  CHECK(!job_status_from("done"));
  CHECK(!job_status_from(""));
}

TEST_CASE("a listener hears each committed change of a job, and nothing once it is off") {
  store_world world;
  std::vector<std::string> heard;
  int number = world->watch([&](const std::string& job) { heard.push_back(job); });
  auto job = world.job();
  REQUIRE(world->change_status(job.id, {job_status::validating_files}, job_status::queued));
  CHECK(!world->change_status(job.id, {job_status::running}, job_status::queued));
  event_record event;
  event.job = job.id;
  REQUIRE(world->add_event(event));
  CHECK(heard == std::vector<std::string>(3, job.id));
  world->unwatch(number);
  REQUIRE(world->set_progress(job.id, {1, 2, 3, 4}));
  CHECK(heard.size() == 3);
}
