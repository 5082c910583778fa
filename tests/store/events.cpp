#include "tests/support/store_world.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using namespace tandem::store;
using tandem::test::store_world;

namespace {

void say(store_world& world, const std::string& job, const std::string& message) {
  event_record event;
  event.job = job;
  event.message = message;
  event.type = "metrics";
  event.data_json = R"({"step":1})";
  REQUIRE(world->add_event(event));
}

}  // namespace

TEST_CASE("events have ids, rising sequence numbers and the words they were given") {
  store_world world;
  auto job = world.job().id;
  auto other = world.job().id;
  say(world, job, "one");
  say(world, other, "elsewhere");
  say(world, job, "two");
  auto events = world->events_since(job, 0, 100);
  REQUIRE(events);
  REQUIRE(events->size() == 3);  // "Created" first
  CHECK(events->at(1).message == "one");
  CHECK(events->at(2).message == "two");
  CHECK(events->at(2).sequence > events->at(1).sequence);
  CHECK(events->at(1).id.starts_with("ftevent-"));
  CHECK(events->at(1).job == job);
  CHECK(events->at(1).type == "metrics");
  CHECK(events->at(1).data_json == R"({"step":1})");
  CHECK(events->at(1).created_at > 1'700'000'000);
  auto from = world->events_since(job, events->at(2).sequence, 100);
  REQUIRE(from);
  CHECK(from->size() == 1);
  CHECK(world->events_since(job, 0, 2)->size() == 2);
}

TEST_CASE("events come in pages, newest first") {
  store_world world;
  auto job = world.job().id;
  for (int i = 0; i < 5; ++i) say(world, job, std::to_string(i));
  auto page = world->list_events(job, {}, 2);
  REQUIRE(page);
  CHECK(page->has_more);
  CHECK(page->rows.at(0).message == "4");
  page = world->list_events(job, page->rows.at(1).id, 3);
  REQUIRE(page);
  CHECK(page->has_more);
  CHECK(page->rows.at(0).message == "2");
  page = world->list_events(job, page->rows.at(2).id, 3);
  REQUIRE(page);
  CHECK(!page->has_more);
  CHECK(page->rows.size() == 1);
}

TEST_CASE("events and checkpoints of an unknown job are refused") {
  store_world world;
  CHECK(world->list_events("ftjob-none", {}, 1).error().code == errc::not_found);
  CHECK(world->events_since("ftjob-none", 0, 1).error().code == errc::not_found);
  CHECK(world->list_checkpoints("ftjob-none", {}, 1).error().code == errc::not_found);
  event_record event;
  event.job = "ftjob-none";
  CHECK(world->add_event(event).error().code == errc::not_found);
}

TEST_CASE("a checkpoint that is written again keeps its id and takes the new metrics") {
  store_world world;
  auto job = world.job().id;
  auto add = [&](std::int64_t step, std::string metrics) {
    checkpoint_record checkpoint;
    checkpoint.job = job;
    checkpoint.step = step;
    checkpoint.model = "ft:m:ckpt-step-" + std::to_string(step);
    checkpoint.metrics_json = std::move(metrics);
    REQUIRE(world->add_checkpoint(checkpoint));
  };
  add(4, R"({"train_loss":2})");
  add(8, R"({"train_loss":1})");
  auto before = world->list_checkpoints(job, {}, 10);
  REQUIRE(before);
  REQUIRE(before->rows.size() == 2);
  CHECK(before->rows[0].step == 8);
  CHECK(before->rows[0].id.starts_with("ftckpt_"));
  add(8, R"({"train_loss":1.5})");
  auto after = world->list_checkpoints(job, {}, 10);
  REQUIRE(after);
  REQUIRE(after->rows.size() == 2);
  CHECK(after->rows[0].id == before->rows[0].id);
  CHECK(after->rows[0].metrics_json == R"({"train_loss":1.5})");
  REQUIRE(world->remove_checkpoint(job, 4));
  after = world->list_checkpoints(job, {}, 1);
  REQUIRE(after);
  CHECK(!after->has_more);
  CHECK(after->rows.at(0).step == 8);
}
