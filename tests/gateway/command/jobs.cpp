// jobs, job, cancel, pause, resume: what they ask for and what they show.
#include "runtime/text/value.hpp"
#include "tests/support/command_run.hpp"
#include "tests/support/scripted_server.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

namespace {

using namespace tandem;
using namespace tandem::tests;
using pieces = std::vector<std::string>;

std::string job_json(const std::string& id, const std::string& status,
                     const std::string& more = {}) {
  return R"({"id": ")" + id + R"(", "object": "fine_tuning.job", "model": "smol", "status": ")" +
         status +
         R"(", "created_at": 1764104040, "finished_at": null, "fine_tuned_model": null,
            "trained_tokens": null, "training_file": "file-1", "seed": 7,
            "hyperparameters": {"n_epochs": 3, "batch_size": 4},
            "tandem": {"step": 3, "step_count": 12, "trained_tokens": 900, "method": "lora", "targets": ["q_proj", "v_proj"]})" +
         more + "}";
}

// Two jobs over two pages, and what can be done to the first.
pieces two_jobs(const seen_request& seen) {
  const std::string path = "/v1/fine_tuning/jobs";
  if (seen.target.find(path + "?limit=") == 0) {
    const bool second = seen.target.find("&after=ftjob-aabb") != std::string::npos;
    return {json_reply(200, std::string(R"({"object": "list", "data": [)") +
                                (second ? job_json("ftjob-aacc", "failed",
                                                   R"(, "error": {"message": "loss is NaN"})")
                                        : job_json("ftjob-aabb", "running")) +
                                R"(], "has_more": )" + (second ? "false" : "true") + "}")};
  }
  if (seen.target == path + "/ftjob-aabb")
    return {json_reply(200, job_json("ftjob-aabb", "running"))};
  if (seen.target == path + "/ftjob-aabb/pause") {
    return {json_reply(200, job_json("ftjob-aabb", "paused"))};
  }
  if (seen.target == path + "/ftjob-aabb/resume") {
    return {json_reply(409, R"({"error": {"message": "ftjob-aabb is running, not paused"}})")};
  }
  return {json_reply(404, R"({"error": {"message": "no such job"}})")};
}

command_run run_at(const scripted_server& server, std::vector<std::string> words) {
  words.insert(words.end(), {"--address", server.address()});
  return run_command(words);
}

TEST_CASE("jobs lists every page, newest first, with status, steps and base") {
  const scripted_server server(two_jobs);
  const auto run = run_at(server, {"jobs"});
  CHECK(run.status == 0);
  CHECK(run.out ==
        "JOB         STATUS   STEPS       BASE  CREATED (UTC)     MODEL\n"
        "ftjob-aabb  running  3/12 (25%)  smol  2025-11-25 20:54  \n"
        "ftjob-aacc  failed   3/12 (25%)  smol  2025-11-25 20:54  \n");
  CHECK(server.requests()[0].target == "/v1/fine_tuning/jobs?limit=20");
  CHECK(server.requests()[1].target == "/v1/fine_tuning/jobs?limit=19&after=ftjob-aabb");

  const auto json = text::value::from_json(run_at(server, {"jobs", "--json"}).out);
  REQUIRE(json);
  CHECK(json->if_array()->size() == 2);
  CHECK(run_at(server, {"jobs", "--limit", "0"}).status == 2);
}

TEST_CASE("jobs of an empty list says how to start one") {
  const scripted_server server([](const seen_request&) {
    return pieces{json_reply(200, R"({"object": "list", "data": [], "has_more": false})")};
  });
  CHECK(run_at(server, {"jobs"}).out == "no jobs yet: start one with `tandem train DATA.jsonl`\n");
  CHECK(run_at(server, {"jobs", "--json"}).out == "[]\n");
}

TEST_CASE("a platform that does not train says so in one line") {
  const scripted_server server([](const seen_request&) {
    return pieces{json_reply(501, R"({"error": {"message": "this platform does not train"}})")};
  });
  const auto run = run_at(server, {"jobs"});
  CHECK(run.status == 1);
  CHECK(run.err == "tandem: " + server.address() + " answered 501: this platform does not train\n");
}

TEST_CASE("job shows one job with its settings") {
  const scripted_server server(two_jobs);
  const auto run = run_at(server, {"job", "ftjob-aabb"});
  CHECK(run.status == 0);
  for (const char* shown :
       {"status         running\n", "steps          3/12 (25%)\n", "tokens         900\n",
        "  n_epochs     3\n", "  targets      q_proj, v_proj\n"}) {
    CAPTURE(shown, run.out);
    CHECK(run.out.find(shown) != std::string::npos);
  }
  CHECK(server.requests().size() == 1);
}

TEST_CASE("reading takes the beginning of an id while it is the only one") {
  const scripted_server server(two_jobs);
  for (const char* beginning : {"ftjob-aab", "aab", "aacc"}) {
    CAPTURE(beginning);
    CHECK(run_at(server, {"job", beginning}).status == 0);
  }
  const auto two = run_at(server, {"job", "aa"});
  CHECK(two.status == 1);
  CHECK(two.err ==
        "tandem: 2 jobs begin with aa, ftjob-aabb and ftjob-aacc among them: give more of the "
        "id\n");
  const auto none = run_at(server, {"job", "ftjob-zz"});
  CHECK(none.status == 1);
  CHECK(none.err == "tandem: no job ftjob-zz: `tandem jobs` lists them\n");
}

TEST_CASE("what changes a job takes its whole id, and names the one that was meant") {
  const scripted_server server(two_jobs);
  const auto shortened = run_at(server, {"cancel", "aabb"});
  CHECK(shortened.status == 1);
  CHECK(shortened.err == "tandem: no job aabb: to cancel ftjob-aabb, give its whole id\n");
  CHECK(run_at(server, {"cancel", "zz"}).err.find("no job zz") != std::string::npos);
  for (const auto& seen : server.requests()) CHECK(seen.method == "GET");

  const auto paused = run_at(server, {"pause", "ftjob-aabb"});
  CHECK(paused.status == 0);
  CHECK(paused.out == "ftjob-aabb: paused\n");
  CHECK(server.requests().back().method == "POST");
  CHECK(run_at(server, {"pause", "ftjob-aabb", "--json"}).out.front() == '{');

  const auto refused = run_at(server, {"resume", "ftjob-aabb"});
  CHECK(refused.status == 1);
  CHECK(refused.err.find("409: ftjob-aabb is running, not paused") != std::string::npos);
}

TEST_CASE("what cannot be an id never reaches the server's paths") {
  const scripted_server server(two_jobs);
  for (const char* bad : {"../files", "a/b", "a?b", "a b", "%2e%2e", ""}) {
    CAPTURE(bad);
    CHECK(run_at(server, {"job", bad}).status != 0);
    CHECK(run_at(server, {"cancel", bad}).status != 0);
  }
  CHECK(server.requests().empty());
}

TEST_CASE("job --events prints all of them, oldest first, one a line") {
  const scripted_server server([](const seen_request& seen) -> pieces {
    if (seen.target.find("/events") == std::string::npos) {
      return {json_reply(200, job_json("ftjob-aabb", "running"))};
    }
    return {json_reply(200, R"({"data": [
      {"id": "e2", "created_at": 1764104041, "level": "warn", "type": "message", "message": "b\nc"},
      {"id": "e1", "created_at": 1764104040, "level": "info", "type": "message", "message": "a"}],
      "has_more": false})")};
  });
  CHECK(run_at(server, {"job", "ftjob-aabb", "--events"}).out ==
        "2025-11-25 20:54  info  a\n2025-11-25 20:54  warn  b c\n");
  const auto json = run_at(server, {"job", "ftjob-aabb", "--events", "--json"});
  CHECK(std::ranges::count(json.out, '\n') == 2);
  CHECK(json.out.find("\"e1\"") < json.out.find("\"e2\""));
}

}  // namespace
