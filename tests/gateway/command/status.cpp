#include "runtime/text/value.hpp"
#include "tests/support/command_run.hpp"
#include "tests/support/scripted_server.hpp"

#include <catch2/catch.hpp>

#include <fstream>

namespace {

using namespace tandem;
using namespace tandem::tests;
using pieces = std::vector<std::string>;

constexpr const char* cluster = R"({"state": "ready", "detail": "", "requests_inside": 3,
  "models": [{"id": "smol", "family": "llama", "precision": "q4_1", "context_length": 8192,
              "parameter_count": 134515008, "weights_version": 1}],
  "devices": [{"name": "cpu:0-1", "backend": "avx512_vnni", "threads": 2, "ready": true,
    "lease": {"role": "serve", "holder": "smol", "epoch": 4},
    "memory": {"capacity_bytes": 1073741824, "used_bytes": 536870912,
               "by_owner": {"weights": 268435456, "kv_blocks": 268435456, "optimizer": 0}},
    "queued": 1, "running": 2, "kv_blocks": {"total": 512, "free": 500, "cached": 12},
    "preemptions": 0, "prompt_tokens_computed": 30, "prompt_tokens_cached": 10,
    "tokens_generated": 99, "busy_seconds": 1.25}],
  "devices_lost": 0})";

command_run run_at(const scripted_server& server, std::vector<std::string> words) {
  words.insert(words.end(), {"--address", server.address()});
  return run_command(words);
}

TEST_CASE("status shows readiness, models, leases, memory by owner and what is running") {
  const scripted_server server(
      [](const seen_request&) { return pieces{json_reply(200, cluster)}; });
  const auto run = run_at(server, {"status"});
  CHECK(run.status == 0);
  CHECK(server.requests().front().target == "/admin/cluster");
  for (const char* shown :
       {"ready at ", "3 requests inside", "smol", "135 M", "avx512_vnni x2",
        "smol (serve, epoch 4)", "512 MiB of 1.0 GiB: weights 256 MiB, kv_blocks 256 MiB\n",
        "500 of 512 free", "10 of 40 prompt tokens came from the cache"}) {
    CAPTURE(shown, run.out);
    CHECK(run.out.find(shown) != std::string::npos);
  }
  CHECK(run.out.find("optimizer") == std::string::npos);
}

TEST_CASE("status of a platform that is not ready ends with 1, and says why") {
  const scripted_server server([](const seen_request&) {
    return pieces{json_reply(200, R"({"state": "starting", "detail": "loading smol"})")};
  });
  const auto run = run_at(server, {"status"});
  CHECK(run.status == 1);
  CHECK(run.out.find("starting at " + server.address() + ": loading smol") == 0);
}

TEST_CASE("status --json passes on what the platform says") {
  const scripted_server server(
      [](const seen_request&) { return pieces{json_reply(200, cluster)}; });
  const auto run = run_at(server, {"status", "--json"});
  CHECK(*text::value::from_json(run.out) == *text::value::from_json(cluster));
}

TEST_CASE("a missing admin key is said with what to do") {
  const scripted_server server([](const seen_request&) {
    return pieces{json_reply(401, R"({"error": {"message": "this needs the admin key"}})")};
  });
  const auto run = run_at(server, {"status"});
  CHECK(run.status == 1);
  CHECK(run.err.find("this needs the admin key (give --api-key or $TANDEM_API_KEY)") !=
        std::string::npos);
}

TEST_CASE("models lists what is served and what lies on disk") {
  const scratch_folder home;
  std::filesystem::create_directories(home.path() / "models");
  std::ofstream(home.path() / "models" / "local.gguf") << "12345";
  const scripted_server server([](const seen_request&) {
    return pieces{json_reply(200, R"({"data": [{"id": "served", "max_model_len": 8192}]})")};
  });
  command_world world;
  world.home = home.path();
  const auto run = run_command({"models", "--address", server.address()}, world);
  CHECK(run.status == 0);
  CHECK(run.out.find("served  served at " + server.address()) != std::string::npos);
  CHECK(run.out.find("5 B") != std::string::npos);

  const auto json = run_command({"models", "--json", "--address", server.address()}, world);
  const auto shown = text::value::from_json(json.out);
  REQUIRE(shown);
  CHECK(*shown->find("local")->if_array()->front().find("bytes")->if_int() == 5);
  CHECK(*shown->find("served")->if_array()->front().find("id")->if_string() == "served");
}

TEST_CASE("models without a server lists the disk and says that nothing is served") {
  const auto run = run_command({"models", "--address", "http://127.0.0.1:1"});
  CHECK(run.status == 0);
  CHECK(run.out.find("not served: nobody listens at http://127.0.0.1:1") != std::string::npos);
  CHECK(run.out.find("none on disk: get one with `tandem pull REPO`") != std::string::npos);
}

}  // namespace
