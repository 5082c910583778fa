// Trained versions beside their base: in the list of models, and in requests that name them.
#include "gateway/actor_engine.hpp"
#include "tests/support/gateway_world.hpp"

using namespace tandem;
using namespace tandem::test;

namespace {

constexpr auto name = "ft:bytes:org/team:facts:ftjob-1";

std::shared_ptr<gateway::served_model> version_model() {
  auto model = byte_model();
  model->id = name;
  model->parent = "bytes";
  model->job = "ftjob-1";
  model->weights_version = 40;
  return model;
}

}  // namespace

TEST_CASE("a version names its base, its job and its number") {
  gateway_world world;
  world.engine->served = {byte_model(), version_model()};
  const auto body = json(world.call("GET", "/v1/models")->body);
  CHECK(at(body, "data.0.parent").is_null());
  CHECK(text_at(body, "data.0.root") == "bytes");
  CHECK(text_at(body, "data.1.id") == name);
  CHECK(text_at(body, "data.1.parent") == "bytes");
  CHECK(text_at(body, "data.1.root") == "bytes");
  CHECK(text_at(body, "data.1.fine_tuning_job") == "ftjob-1");
  CHECK(text_at(body, "data.1.owned_by") == "tandem");
  CHECK(number_at(body, "data.1.weights_version") == 40);
  const auto one = json(world.call("GET", std::string("/v1/models/") + name)->body);
  CHECK(text_at(one, "id") == name);
}

TEST_CASE("a request to a version names it in the engine and in its answer") {
  gateway_world world;
  world.engine->served = {byte_model(), version_model()};
  world.engine->answer = "hello";
  const auto chat = json(
      world
          .post("/v1/chat/completions", R"({"model":")" + std::string(name) +
                                            R"(","messages":[{"role":"user","content":"Hi"}]})")
          ->body);
  CHECK(world.asked().model == name);
  CHECK(text_at(chat, "model") == name);
  CHECK(number_at(chat, "tandem.weights_version") == 7);  // what its deltas say
}

TEST_CASE("with versions beside it the base is still the model that need not be named") {
  gateway_world world;
  world.engine->served = {byte_model(), version_model()};
  CHECK(number_at(json(world.post("/tokenize", R"({"prompt":"Hi"})")->body), "count") > 0);
}

TEST_CASE("the engine's models are the base and what the newest report says is served") {
  auto board = std::make_shared<actors::gateway_board>();
  gateway::actor_engine engine({}, board, 4, std::chrono::seconds(1));
  CHECK(engine.models().empty());
  const auto base = byte_model();
  engine.publish(base);
  CHECK(engine.models() == std::vector<std::shared_ptr<const gateway::served_model>>{base});
  actors::serve_report report;
  report.model = "bytes";
  report.versions = {{name, 40, "ftjob-1", "lora", 1'700'000'123, {"cpu:1"}}};
  board->put(report);
  const auto models = engine.models();
  REQUIRE(models.size() == 2);
  CHECK(models[0] == base);
  CHECK(models[1]->id == name);
  CHECK(models[1]->parent == "bytes");
  CHECK(models[1]->created == 1'700'000'123);
  CHECK(models[1]->weights_version == 40);
  CHECK(models[1]->devices == std::vector<std::string>{"cpu:1"});
  CHECK(models[1]->tokenizer == base->tokenizer);
  CHECK(models[1]->context_length == base->context_length);
  CHECK(engine.models()[1] == models[1]);  // not made anew each time
  report.versions.front().version = 41;
  board->put(report);
  CHECK(engine.models()[1]->weights_version == 41);
  CHECK(models[1]->weights_version == 40);
  CHECK_THAT(engine.status_json(), Catch::Contains(R"("parent":"bytes")"));
  report.versions.clear();
  board->put(report);
  CHECK(engine.models().size() == 1);
}
