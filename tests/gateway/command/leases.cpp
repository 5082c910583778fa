// leases, assign, policy, why, events: what they ask for and what they show.
#include "runtime/text/value.hpp"
#include "tests/support/command_run.hpp"
#include "tests/support/scripted_server.hpp"

#include <catch2/catch.hpp>

namespace {

using namespace tandem;
using namespace tandem::tests;
using pieces = std::vector<std::string>;

constexpr const char* two_leases = R"({"time_ms": 1764104045000, "epoch": 9,
  "policy": {"name": "latency_first", "min_serve_devices": 1, "max_train_devices": 0,
             "cooldown_ms": 2000, "ttft_target_ms": 500, "itl_target_ms": 100},
  "devices": [
    {"device": "cpu:0", "role": "shared", "holder": "serve smol", "job": "ftjob-1", "epoch": 7,
     "pin": null, "moving_to": "serve", "since_ms": 1764103920000,
     "why": "time to first token 610 ms is above 500 ms", "busy": 0.75},
    {"device": "cpu:1", "role": "train", "holder": "ftjob-1", "job": "ftjob-1", "epoch": 9,
     "pin": "train", "moving_to": null, "since_ms": 1764104040000, "why": "by hand", "busy": 0}],
  "moves": 9, "refusals": 1})";

constexpr const char* history = R"({"object": "list", "has_more": false, "data": [
  {"sequence": 3, "time_ms": 1764104040120, "kind": "move", "device": "cpu:1", "job": null,
   "from": "serve", "to": "train", "epoch": 9, "cause": "assigned by hand", "why": "",
   "numbers": {}, "held_after_us": 800, "first_work_after_us": null},
  {"sequence": 2, "time_ms": 1764104030000, "kind": "move", "device": "cpu:1", "job": "ftjob-1",
   "from": "train", "to": "serve", "epoch": 8, "cause": "latency_first",
   "why": "3 requests wait\u001b[2J", "numbers": {"queued": 3, "busy": 0.25},
   "held_after_us": 800, "first_work_after_us": 1900}]})";

pieces platform(const seen_request& seen) {
  if (seen.target == "/admin/leases") return {json_reply(200, two_leases)};
  if (seen.target.find("/admin/leases/history") == 0) {
    const bool known = seen.target.find("device=cpu:9") == std::string::npos;
    return {json_reply(200, known ? history : R"({"data": [], "has_more": false})")};
  }
  if (seen.target == "/admin/assign") {
    if (seen.body.find("cpu:9") != std::string::npos)
      return {
          json_reply(404, R"({"error": {"message": "no device cpu:9; there are cpu:0, cpu:1"}})")};
    return {json_reply(200, R"({"device": "cpu:0", "role": "serve", "holder": "serve smol",
                                "job": null, "epoch": 7, "ordered": "train"})")};
  }
  if (seen.target == "/admin/policy")
    return {json_reply(200, R"({"name": "fixed", "ttft_target_ms": 300})")};
  return {json_reply(404, R"({"error": {"message": "no such path"}})")};
}

command_run run_at(const scripted_server& server, std::vector<std::string> words,
                   const command_world& world = {}) {
  words.insert(words.end(), {"--address", server.address()});
  return run_command(words, world);
}

TEST_CASE("leases shows who holds each device, since when, and why") {
  const scripted_server server(platform);
  const auto run = run_at(server, {"leases"});
  CHECK(run.status == 0);
  CHECK(run.out ==
        "DEVICE  ROLE             HELD BY               EPOCH  SINCE  PIN    BUSY  WHY\n"
        "cpu:0   shared -> serve  serve smol + ftjob-1  7      2m05s         75%   time to first "
        "token 610 ms is above 500 ms\n"
        "cpu:1   train            ftjob-1               9      5s     train  0%    by hand\n"
        "\n"
        "policy latency_first: at least 1 serve, any number train; targets 500 ms to the first "
        "token, 100 ms between two; 9 moves, 1 refused\n");
}

TEST_CASE("on a terminal the reasons are shortened to its width") {
  const scripted_server server(platform);
  command_world world;
  world.environment = {{"COLUMNS", "100"}};
  const auto run = run_at(server, {"leases"}, world);
  CHECK(run.out.find("75%   time to first token 610 m…\n") != std::string::npos);
}

TEST_CASE("leases --json passes on what the platform says") {
  const scripted_server server(platform);
  const auto run = run_at(server, {"leases", "--json"});
  CHECK(*text::value::from_json(run.out) == *text::value::from_json(two_leases));
}

TEST_CASE("assign orders a role and says what the device does until it has it") {
  const scripted_server server(platform);
  auto run = run_at(server, {"assign", "cpu:0", "train"});
  CHECK(run.status == 0);
  CHECK(run.out == "cpu:0 is in serve (epoch 7, held by serve smol); it moves to train now\n");
  CHECK(server.requests().back().method == "POST");
  CHECK(server.requests().back().body == R"({"device":"cpu:0","role":"train"})");
  CHECK(run_at(server, {"assign", "cpu:0", "serve"}).out.find("and stays there") !=
        std::string::npos);
  CHECK(run_at(server, {"assign", "cpu:0", "auto"}).out.find("the policy decides") !=
        std::string::npos);
  run = run_at(server, {"assign", "cpu:9", "serve"});
  CHECK(run.status == 1);
  CHECK(run.err.find("404: no device cpu:9; there are cpu:0, cpu:1") != std::string::npos);
  const auto asked = server.requests().size();
  run = run_at(server, {"assign", "cpu:0", "idle"});
  CHECK(run.status == 2);
  CHECK(run.err.find("idle") != std::string::npos);
  CHECK(run_at(server, {"assign", "cpu:0"}).status == 2);
  CHECK(server.requests().size() == asked);
}

TEST_CASE("policy shows what holds, and changes what it is given") {
  const scripted_server server(platform);
  CHECK(run_at(server, {"policy"}).out == "name            fixed\nttft_target_ms  300\n");
  CHECK(server.requests().back().method == "GET");
  CHECK(run_at(server, {"policy", "fixed", "--set", "ttft_target_ms=300"}).status == 0);
  CHECK(server.requests().back().body == R"({"name":"fixed","ttft_target_ms":300})");
  const auto bad = run_at(server, {"policy", "--set", "ttft_target_ms=fast"});
  CHECK(bad.status == 2);
  CHECK(bad.err.find("give KEY=NUMBER") != std::string::npos);
  CHECK(run_at(server, {"policy", "fair"}).status == 2);
}

TEST_CASE("why gives the state, then the decisions with their numbers, newest first") {
  const scripted_server server(platform);
  const auto run = run_at(server, {"why", "cpu:1", "--limit", "2"});
  CHECK(run.status == 0);
  CHECK(server.requests().back().target == "/admin/leases/history?device=cpu:1&limit=2");
  CHECK(run.out ==
        "cpu:1: train for 5s (epoch 9, held by ftjob-1), by hand until `tandem assign … auto`\n"
        "by hand\n"
        "\n"
        "2025-11-25 20:54:00.120  move        cpu:1  serve -> train  assigned by hand\n"
        "    epoch 9, held after 0.8 ms\n"
        "\n"
        "2025-11-25 20:53:50.000  move        cpu:1  train -> serve  ftjob-1  latency_first: 3 "
        "requests wait [2J\n"
        "    queued 3, busy 0.25\n"
        "    epoch 8, held after 0.8 ms, first work after 1.9 ms\n");
}

TEST_CASE("why of a device that is not there names those that are") {
  const scripted_server server(platform);
  for (const char* name : {"cpu:9", "a b&limit=9", "../x?"}) {
    const auto run = run_at(server, {"why", name});
    CHECK(run.status == 1);
    CHECK(run.err == std::string("tandem: no device ") + name + ": there are cpu:0, cpu:1\n");
  }
}

TEST_CASE("events prints what happened, oldest first, one a line") {
  const scripted_server server(platform);
  const auto run = run_at(server, {"events", "--limit", "7"});
  CHECK(run.status == 0);
  CHECK(server.requests().back().target == "/admin/leases/history?limit=7");
  CHECK(run.out ==
        "2025-11-25 20:53:50.000  move        cpu:1  train -> serve  ftjob-1  latency_first: 3 "
        "requests wait [2J\n"
        "2025-11-25 20:54:00.120  move        cpu:1  serve -> train  assigned by hand\n");
  const auto json = run_at(server, {"events", "--json"}).out;
  CHECK(json.find("{\"sequence\":2,") == 0);
  CHECK(json.find("\n{\"sequence\":3,") != std::string::npos);
}

TEST_CASE("events --follow goes on behind the last one, and gives up on a platform that refuses") {
  int streams = 0;
  const scripted_server server([&](const seen_request& seen) -> pieces {
    if (seen.target.find("/admin/events") != 0) return platform(seen);
    if (++streams == 1)
      return {
          "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: "
          "chunked\r\n\r\n",
          chunk("event: device_up\nid: 4\ndata: {\"sequence\": 4, \"time_ms\": 1764104050000, "
                "\"kind\": \"device_up\", \"device\": \"cpu:2\", \"from\": \"idle\", \"to\": "
                "\"idle\"}\n\n"),
          chunk(":\n\n") + "0\r\n\r\n"};
    return {json_reply(401, R"({"error": {"message": "this needs the admin key"}})")};
  });
  const auto run = run_at(server, {"events", "--follow", "--limit", "0"});
  CHECK(run.out == "2025-11-25 20:54:10.000  device_up   cpu:2\n");
  CHECK(run.status == 1);
  CHECK(run.err.find("this needs the admin key") != std::string::npos);
  std::vector<std::string> followed;
  for (const auto& seen : server.requests())
    if (seen.target.find("/admin/events") == 0) followed.push_back(seen.target);
  CHECK(followed == std::vector<std::string>{"/admin/events?after=3", "/admin/events?after=4"});
}

}  // namespace
