#include "tests/support/upload.hpp"

using namespace tandem;
using namespace tandem::test;
using store::job_status;

namespace {

struct job_world {
  store_world kept;
  gateway_world web{kept.shared()};
  std::string file = kept.file().id;

  // `more` are further fields, with a comma before each.
  std::shared_ptr<fake_responder> create(const std::string& more = {},
                                         gateway::header_list headers = {}) {
    return web.call("POST", "/v1/fine_tuning/jobs",
                    R"({"model":"bytes","training_file":")" + file + "\"" + more + "}",
                    std::move(headers));
  }
  text::value created(const std::string& more = {}) {
    const auto to = create(more);
    INFO(to->body);
    REQUIRE(to->status == 200);
    return json(to->body);
  }
  std::shared_ptr<fake_responder> act(const std::string& id, const std::string& action) {
    return web.call("POST", "/v1/fine_tuning/jobs/" + id + "/" + action);
  }
  text::value seen(const std::string& id) {
    const auto to = web.call("GET", "/v1/fine_tuning/jobs/" + id);
    REQUIRE(to->status == 200);
    return json(to->body);
  }
};

}  // namespace

TEST_CASE("a new job is OpenAI's object, waiting for its files to be checked") {
  job_world world;
  const auto job = world.created();
  const auto id = text_at(job, "id");
  CHECK(id.starts_with("ftjob-"));
  CHECK(text_at(job, "object") == "fine_tuning.job");
  CHECK(text_at(job, "status") == "validating_files");
  CHECK(text_at(job, "model") == "bytes");
  CHECK(text_at(job, "training_file") == world.file);
  for (const char* null : {"finished_at", "fine_tuned_model", "validation_file", "trained_tokens",
                           "error", "estimated_finish", "metadata", "user_provided_suffix"}) {
    INFO(null);
    CHECK(at(job, null).is_null());
  }
  CHECK_FALSE(text_at(job, "organization_id").empty());
  CHECK(at(job, "result_files").to_json() == "[]");
  CHECK(at(job, "integrations").to_json() == "[]");
  CHECK(at(job, "hyperparameters").to_json() ==
        R"({"n_epochs":"auto","batch_size":"auto","learning_rate_multiplier":"auto"})");
  CHECK(text_at(job, "method.type") == "supervised");
  CHECK(at(job, "method.supervised.hyperparameters") == at(job, "hyperparameters"));
  CHECK(number_at(job, "seed") >= 0);
  CHECK(world.seen(id) == job);
  CHECK(world.kept->find_job(id)->status == job_status::validating_files);
}

TEST_CASE("every field of a request reaches the job") {
  job_world world;
  const auto job = world.created(
      R"(,"validation_file":")" + world.kept.file().id +
      R"(","suffix":"my-model_1.0","seed":42,"metadata":{"team":"größe"},"integrations":[],)"
      R"("method":{"type":"supervised","supervised":{"hyperparameters":{"n_epochs":2,)"
      R"("batch_size":"auto","learning_rate_multiplier":0.5}}},"tandem":{"method":"lora","rank":8})");
  CHECK(text_at(job, "user_provided_suffix") == "my-model_1.0");
  CHECK(number_at(job, "seed") == 42);
  CHECK(text_at(job, "metadata.team") == "größe");
  CHECK(at(job, "hyperparameters").to_json() ==
        R"({"n_epochs":2,"batch_size":"auto","learning_rate_multiplier":0.5})");
  CHECK(number_at(job, "tandem.rank") == 8);
  const auto kept = world.kept->find_job(text_at(job, "id"));
  REQUIRE(kept);
  CHECK(kept->own_json == R"({"method":"lora","rank":8})");
  CHECK(kept->validation_file == text_at(job, "validation_file"));
}

TEST_CASE("hyperparameters at the top are read as once published, and not both ways at once") {
  job_world world;
  const auto job = world.created(R"(,"hyperparameters":{"n_epochs":4})");
  CHECK(number_at(job, "method.supervised.hyperparameters.n_epochs") == 4);
  check_refused(*world.create(R"(,"hyperparameters":{"n_epochs":4},"method":{"type":"supervised",)"
                              R"("supervised":{"hyperparameters":{"n_epochs":4}}})"),
                400, "hyperparameters", "under 'method' as well");
  check_refused(*world.create(R"(,"hyperparameters":{"n_epochs":400})"), 400,
                "hyperparameters.n_epochs", "hyperparameters.n_epochs");
}

TEST_CASE("what a job cannot be made of is refused by field") {
  job_world world;
  auto& web = world.web;
  const auto post = [&](const std::string& body) {
    return web.call("POST", "/v1/fine_tuning/jobs", body);
  };
  check_refused(*post("{"), 400, "", "parse the JSON body");
  check_refused(*post("[]"), 400, "", "must be one JSON object");
  check_refused(*post(R"({"training_file":"file-1"})"), 400, "model", "Missing");
  check_refused(*post(R"({"model":"bytes"})"), 400, "training_file", "Missing");
  check_refused(*post(R"({"model":"bytes","training_file":"file-1"})"), 400, "training_file",
                "there is no file 'file-1'");
  check_refused(*post(R"({"model":7,"training_file":"file-1"})"), 400, "model", "a string");
  check_refused(*post(R"({"model":"nobody","training_file":")" + world.file + "\"}"), 404, "model",
                "does not exist");
  check_refused(*post(R"({"model":"ft:bytes:tandem::1","training_file":")" + world.file + "\"}"),
                400, "model", "name its base");
  const auto other = world.kept.file("{}", "batch").id;
  check_refused(*post(R"({"model":"bytes","training_file":")" + other + "\"}"), 400,
                "training_file", "with purpose 'batch'");
  check_refused(*world.create(R"(,"validation_file":"file-2")"), 400, "validation_file",
                "no file 'file-2'");
  check_refused(*world.create(R"(,"suffix":"")"), 400, "suffix", "empty");
  check_refused(*world.create(R"(,"suffix":")" + std::string(65, 'x') + "\""), 400, "suffix",
                "at most 64");
  check_refused(*world.create(R"(,"suffix":"a:b")"), 400, "suffix", "'a:b'");
  check_refused(*world.create(R"(,"seed":-1)"), 400, "seed", ">= 0");
  check_refused(*world.create(R"(,"seed":"1")"), 400, "seed", "an integer");
  check_refused(*world.create(R"(,"metadata":[])"), 400, "metadata", "an object");
  check_refused(*world.create(R"(,"metadata":{"a":1})"), 400, "metadata.a", "a string");
  check_refused(*world.create(R"(,"metadata":{")" + std::string(65, 'k') + R"(":"v"})"), 400,
                "metadata." + std::string(65, 'k'), "64 characters");
  check_refused(*world.create(R"(,"metadata":{"k":")" + std::string(513, 'v') + R"("})"), 400,
                "metadata.k", "512 characters");
  std::string pairs;
  for (int i = 0; i < 17; ++i) pairs += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":\"v\"";
  check_refused(*world.create(R"(,"metadata":{)" + pairs + "}"), 400, "metadata", "at most 16");
  check_refused(*world.create(R"(,"integrations":[{"type":"wandb"}])"), 400, "integrations",
                "Unsupported");
  check_refused(*world.create(R"(,"method":{"type":"dpo"})"), 400, "method.type", "'dpo'");
  check_refused(*world.create(R"(,"method":{"type":"reinforcement"})"), 400, "method.type",
                "not built");
  check_refused(*world.create(R"(,"method":{"type":"magic"})"), 400, "method.type", "'magic'");
  check_refused(*world.create(R"(,"method":{})"), 400, "method.type", "Missing");
  check_refused(*world.create(R"(,"tandem":{"rang":8})"), 400, "tandem.rang", "rank");
  check_refused(*world.create(R"(,"tandem":7)"), 400, "tandem", "an object");
  CHECK(world.kept->list_jobs({}, 10)->rows.empty());
}

TEST_CASE("fields that are null are as if they were not there") {
  job_world world;
  const auto job = world.created(
      R"(,"validation_file":null,"suffix":null,"seed":null,"metadata":null,"integrations":null,)"
      R"("method":null,"hyperparameters":null,"tandem":null)");
  CHECK(at(job, "metadata").is_null());
}

TEST_CASE("an unknown field that is nearly a known one is a warning, others are ignored") {
  job_world world;
  CHECK(world.create(R"(,"sufix":"x")")->header("x-tandem-warning") ==
        "unknown field 'sufix', did you mean 'suffix'?");
  CHECK(world.create(R"(,"something_else":"x")")->header("x-tandem-warning").empty());
}

TEST_CASE("a request repeated with its idempotency key makes one job, another request is refused") {
  job_world world;
  const gateway::header_list key{{"idempotency-key", "k-1"}};
  const auto first = json(world.create(R"(,"suffix":"a")", key)->body);
  const auto again = json(world.create(R"(,"suffix":"a")", key)->body);
  CHECK(first == again);
  check_refused(*world.create(R"(,"suffix":"b")", key), 400, "Idempotency-Key",
                "by another request");
  check_refused(*world.create({}, {{"idempotency-key", std::string(256, 'k')}}), 400,
                "Idempotency-Key", "255");
  CHECK(world.kept->list_jobs({}, 10)->rows.size() == 1);
}

TEST_CASE("a job is cancelled, paused and resumed from the states that allow it") {
  job_world world;
  const auto running = world.kept.job_in(job_status::running).id;
  CHECK(text_at(json(world.act(running, "pause")->body), "status") == "paused");
  check_refused(*world.act(running, "pause"), 400, "", "is paused and cannot be paused");
  CHECK(text_at(json(world.act(running, "resume")->body), "status") == "queued");
  check_refused(*world.act(running, "resume"), 400, "", "is queued and cannot be resumed");
  const auto cancelled = json(world.act(running, "cancel")->body);
  CHECK(text_at(cancelled, "status") == "cancelled");
  CHECK(number_at(cancelled, "finished_at") > 0);
  for (const auto status : {job_status::succeeded, job_status::failed, job_status::cancelled}) {
    const auto id = world.kept.job_in(status).id;
    for (const std::string action : {"cancel", "pause", "resume"})
      check_refused(*world.act(id, action), 400, "", "Job " + id + " is ");
  }
  for (const auto status : {job_status::validating_files, job_status::queued, job_status::paused})
    CHECK(world.act(world.kept.job_in(status).id, "cancel")->status == 200);
  check_refused(*world.act(world.kept.job().id, "pause"), 400, "", "validating_files");
}

TEST_CASE("an id that is not exactly a job's is 404 on every path") {
  job_world world;
  const auto id = text_at(world.created(), "id");
  for (const std::string& wrong : {std::string("ftjob-none"), id + "0", id.substr(0, 20)}) {
    for (const std::string path : {"", "/events", "/checkpoints"})
      check_refused(*world.web.call("GET", "/v1/fine_tuning/jobs/" + wrong + path), 404,
                    "fine_tuning_job_id", "Could not find fine tune: " + wrong);
    for (const std::string action : {"cancel", "pause", "resume"})
      check_refused(*world.act(wrong, action), 404, "fine_tuning_job_id", wrong);
  }
  check_refused(*world.web.call("GET", "/v1/fine_tuning/jobs/none/events?stream=true"), 404,
                "fine_tuning_job_id", "none");
}

TEST_CASE("jobs are listed newest first, by page and by metadata") {
  job_world world;
  std::vector<std::string> ids;
  for (int i = 0; i < 3; ++i)
    ids.push_back(
        text_at(world.created(R"(,"metadata":{"run":")" + std::to_string(i) + R"("})"), "id"));
  const auto bare = text_at(world.created(), "id");
  const auto list = [&](const std::string& query) {
    return json(world.web.call("GET", "/v1/fine_tuning/jobs" + query)->body);
  };
  CHECK(text_at(list(""), "data.0.id") == bare);
  const auto page = list("?limit=2&after=" + bare);
  CHECK(text_at(page, "data.0.id") == ids[2]);
  CHECK(text_at(page, "data.1.id") == ids[1]);
  CHECK(*at(page, "has_more").if_bool());
  CHECK(text_at(list("?metadata[run]=1"), "data.0.id") == ids[1]);
  CHECK(text_at(list("?metadata%5Brun%5D=0"), "data.0.id") == ids[0]);
  CHECK(text_at(list("?metadata=null"), "data.0.id") == bare);
  check_refused(*world.web.call("GET", "/v1/fine_tuning/jobs?limit=-1"), 400, "limit", "'-1'");
  check_refused(*world.web.call("GET", "/v1/fine_tuning/jobs?after=x"), 400, "after", "'x'");
}

TEST_CASE("a job that ended shows its model, tokens, files and error") {
  job_world world;
  const auto id = world.kept.job_in(job_status::running).id;
  REQUIRE(world.kept->set_progress(id, {5, 10, 1234, 1'900'000'000}));
  auto job = world.seen(id);
  CHECK(at(job, "trained_tokens").is_null());
  CHECK(number_at(job, "tandem.trained_tokens") == 1234);
  CHECK(number_at(job, "tandem.step") == 5);
  CHECK(number_at(job, "tandem.step_count") == 10);
  CHECK(number_at(job, "estimated_finish") == 1'900'000'000);
  REQUIRE(world.kept->set_model(id, "ft:bytes:tandem::" + id));
  REQUIRE(world.kept->add_result_file(id, "file-r"));
  REQUIRE(world.kept->change_status(id, {job_status::running}, job_status::succeeded));
  job = world.seen(id);
  CHECK(number_at(job, "trained_tokens") == 1234);
  CHECK(text_at(job, "fine_tuned_model") == "ft:bytes:tandem::" + id);
  CHECK(text_at(job, "result_files.0") == "file-r");
  CHECK(at(job, "estimated_finish").is_null());
  job = world.seen(world.kept.job_in(job_status::failed).id);
  CHECK(text_at(job, "error.code") == "invalid_training_file");
  CHECK(text_at(job, "error.message") == "line 1: no");
  CHECK(text_at(job, "error.param") == "training_file");
}
