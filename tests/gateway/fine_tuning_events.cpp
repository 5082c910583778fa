#include "server_client.hpp"
#include "tests/support/upload.hpp"

using namespace tandem;
using namespace tandem::test;
using gateway::testing::client;
using gateway::testing::eventually;
using store::job_status;

namespace {

std::string path_of(const std::string& job, const std::string& rest) {
  return "/v1/fine_tuning/jobs/" + job + rest;
}

void say(store_world& kept, const std::string& job, const std::string& message) {
  store::event_record event;
  event.job = job;
  event.message = message;
  event.type = "metrics";
  event.data_json = R"({"step":1,"train_loss":2.5})";
  REQUIRE(kept->add_event(event));
}

// A real server: streams are what sockets make of them.
struct streaming_world {
  store_world kept;
  std::shared_ptr<fake_engine> engine = std::make_shared<fake_engine>();
  std::shared_ptr<gateway::router> routes = std::make_shared<gateway::router>();
  std::function<void()> end_streams =
      gateway::add_openai_routes(*routes, engine, settings{}, kept.shared());
  std::unique_ptr<gateway::server> running =
      gateway::testing::started(gateway::testing::any_port(), routes);

  std::unique_ptr<client> follow(const std::string& job) {
    auto one = std::make_unique<client>(running->port());
    one->send(gateway::testing::get(path_of(job, "/events"), "accept: text/event-stream\r\n"));
    one->read_until("\r\n\r\n");
    return one;
  }
};

}  // namespace

TEST_CASE("events are listed newest first, in pages") {
  store_world kept;
  gateway_world web(kept.shared());
  const auto job = kept.job().id;
  say(kept, job, "one");
  say(kept, job, "two");
  auto body = json(web.call("GET", path_of(job, "/events?limit=2"))->body);
  CHECK(text_at(body, "object") == "list");
  CHECK(text_at(body, "data.0.object") == "fine_tuning.job.event");
  CHECK(text_at(body, "data.0.message") == "two");
  CHECK(text_at(body, "data.0.level") == "info");
  CHECK(text_at(body, "data.0.type") == "metrics");
  CHECK(*at(body, "data.0.data.train_loss").if_double() == 2.5);
  CHECK(*at(body, "has_more").if_bool());
  body = json(
      web.call("GET", path_of(job, "/events?limit=2&after=" + text_at(body, "data.1.id")))->body);
  CHECK(text_at(body, "data.0.message") == "Created fine-tuning job: " + job);
  CHECK_FALSE(*at(body, "has_more").if_bool());
}

TEST_CASE("checkpoints are OpenAI's objects") {
  store_world kept;
  gateway_world web(kept.shared());
  const auto job = kept.job().id;
  store::checkpoint_record checkpoint;
  checkpoint.job = job;
  checkpoint.step = 8;
  checkpoint.model = "ft:bytes:tandem::" + job + ":ckpt-step-8";
  checkpoint.metrics_json = R"({"step":8,"train_loss":1.5})";
  REQUIRE(kept->add_checkpoint(checkpoint));
  const auto body = json(web.call("GET", path_of(job, "/checkpoints"))->body);
  CHECK(text_at(body, "data.0.object") == "fine_tuning.job.checkpoint");
  CHECK(text_at(body, "data.0.fine_tuned_model_checkpoint") == checkpoint.model);
  CHECK(text_at(body, "data.0.fine_tuning_job_id") == job);
  CHECK(number_at(body, "data.0.step_number") == 8);
  CHECK(*at(body, "data.0.metrics.train_loss").if_double() == 1.5);
  CHECK(text_at(body, "first_id") == text_at(body, "data.0.id"));
  CHECK(text_at(body, "last_id") == text_at(body, "data.0.id"));
}

TEST_CASE("a stream tells what was, then what happens, and ends with the job") {
  streaming_world world;
  const auto job = world.kept.job_in(job_status::running).id;
  const auto one = world.follow(job);
  // In chunks: the past first.
  one->read_until("Fine-tuning job started");
  one->read_until("\n\n");
  say(world.kept, job, "Step 1/2: training loss=2.50");
  one->read_until("training loss=2.50");
  one->read_until("\n\n");
  REQUIRE(world.kept->change_status(job, {job_status::running}, job_status::succeeded));
  one->read_until("successfully completed");
  one->read_until("data: [DONE]\n\n");
  one->read_until("0\r\n\r\n");
}

TEST_CASE("the stream of a job that has ended is all of its past") {
  streaming_world world;
  const auto job = world.kept.job_in(job_status::running).id;
  // More than is read or sent at once, and more than may wait unread.
  const std::string padding(1000, 'x');
  for (int i = 0; i < 3000; ++i) say(world.kept, job, std::to_string(i) + padding);
  REQUIRE(world.kept->change_status(job, {job_status::running}, job_status::cancelled));
  client one(world.running->port());
  one.send(gateway::testing::get(path_of(job, "/events?stream=true")));
  const auto response = one.read_response();
  CHECK(response.status == 200);
  CHECK(response.headers.at("content-type") == "text/event-stream; charset=utf-8");
  REQUIRE(response.complete);
  const auto told = frames(response.body);
  REQUIRE(told.size() == 3 + 3000 + 2);
  for (int i = 0; i < 3000; ++i)
    CHECK(text_at(json(told[static_cast<std::size_t>(i) + 3]), "message") ==
          std::to_string(i) + padding);
  CHECK(text_at(json(told[told.size() - 2]), "message") == "Fine-tuning job cancelled");
  CHECK(told.back() == "[DONE]");
}

TEST_CASE("many streams of one job hear the same, and one that leaves disturbs no other") {
  streaming_world world;
  const auto job = world.kept.job_in(job_status::running).id;
  std::vector<std::unique_ptr<client>> all;
  for (int i = 0; i < 8; ++i) all.push_back(world.follow(job));
  for (auto& one : all) one->read_until("started");
  all[3]->leave_with_reset();
  all.erase(all.begin() + 3);
  say(world.kept, job, "news");
  for (auto& one : all) one->read_until("news");
  REQUIRE(world.kept->fail_job(job, {errc::io, "the disk is full", {}}));
  for (auto& one : all) {
    one->read_until("the disk is full");
    one->read_until("[DONE]");
  }
}

TEST_CASE("streams are ended when the server is about to stop") {
  streaming_world world;
  const auto job = world.kept.job_in(job_status::running).id;
  const auto one = world.follow(job);
  one->read_until("started");
  world.end_streams();
  one->read_until("0\r\n\r\n");
  const auto late = world.follow(job);
  late->read_until("0\r\n\r\n");
  CHECK(eventually([&] { return world.running->counts().requests_active == 0; }));
}
