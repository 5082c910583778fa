// top: the screen as a function of the state, the state as a function of what the platform says.
#include "gateway/command/print.hpp"
#include "gateway/command/top_screen.hpp"
#include "gateway/command/top_state.hpp"
#include "tests/support/command_run.hpp"
#include "tests/support/scripted_server.hpp"

#include <catch2/catch.hpp>

namespace {

using namespace tandem;
using namespace tandem::tests;
using namespace tandem::gateway::command;
using lease::role;
using pieces = std::vector<std::string>;

constexpr std::int64_t noon_ms = 1'764'072'000'000;  // 2025-11-26 12:00:00 UTC

// Five minutes of two devices: one served, then shared, and serves again; one trains, by hand.
top_state a_busy_platform() {
  top_state state;
  state.address = "http://127.0.0.1:8000";
  state.policy = "latency_first";
  state.now_ms = noon_ms;
  state.window_ms = 300'000;
  state.ttft_ms = 612.4;
  state.ttft_target_ms = 500;
  state.itl_ms = 31;
  state.itl_target_ms = 100;
  state.waiting_ms = 40;
  state.served_per_second = 812.3;
  state.trained_per_second = 4021;
  state.moves = 9;
  state.refusals = 1;
  const auto ago = [](std::int64_t seconds) { return noon_ms - seconds * 1000; };
  state.devices.push_back({"cpu:0-1",
                           role::serve,
                           std::nullopt,
                           false,
                           "serve SmolLM2-135M-Instruct",
                           0.756,
                           3,
                           2,
                           0.42,
                           {{role::serve, ago(60), noon_ms},
                            {role::shared, ago(180), ago(60)},
                            {role::serve, ago(300), ago(180)}}});
  state.devices.push_back({"cpu:2-3",
                           role::train,
                           role::shared,
                           true,
                           "ftjob-3f2a9c0d1e4b",
                           0,
                           0,
                           0,
                           0.88,
                           {{role::train, ago(120), noon_ms},
                            {role::idle, ago(240), ago(120)},
                            {std::nullopt, ago(300), ago(240)}}});
  state.jobs.push_back({"ftjob-3f2a9c0d1e4b", 120, 480, 61'440, 2.31456, 1});
  return state;
}

std::string joined(const std::vector<std::string>& lines) {
  std::string all;
  for (const std::string& line : lines) all += line + "\n";
  return all;
}

TEST_CASE("the screen at 80 by 24") {
  CHECK("\n" + joined(draw_top(a_busy_platform(), 80, 24, false)) == R"(
tandem at http://127.0.0.1:8000                      latency_first  12:00:00 UTC
first token 612/500 ms!  between tokens 31/100 ms  waiting 40 ms
serving 812 tok/s  training 4021 tok/s                        9 moves, 1 refused

DEVICE   ROLE           HELD BY        BUSY  RUN  QUEUE  LAST 5 MIN
cpu:0-1  serve          serve SmolLM…   76%    3      2  █████████▓▓▓▓▓▓▓▓▓█████
cpu:2-3  train*→shared  ftjob-3f2a9c…    0%    0      0       ·········▒▒▒▒▒▒▒▒▒
█ serve  ▓ shared  ▒ train  · idle  * by hand

JOB                                      STEP      LOSS      TOKENS         ON
ftjob-3f2a9c0d1e4b  ━━━┄┄┄┄┄┄┄┄┄      120/480    2.3146       61440   1 device
)");
}

TEST_CASE("the screen at 120 by 40") {
  CHECK("\n" + joined(draw_top(a_busy_platform(), 120, 40, false)) == R"(
tandem at http://127.0.0.1:8000                                                              latency_first  12:00:00 UTC
first token 612/500 ms!  between tokens 31/100 ms  waiting 40 ms
serving 812 tok/s  training 4021 tok/s                                                                9 moves, 1 refused

DEVICE   ROLE           HELD BY                   BUSY  RUN  QUEUE   MEM  LAST 5 MIN
cpu:0-1  serve          serve SmolLM2-135M-Inst…   76%    3      2   42%  ██████████████████▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓█████████
cpu:2-3  train*→shared  ftjob-3f2a9c0d1e4b          0%    0      0   88%           ···················▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒
█ serve  ▓ shared  ▒ train  · idle  * by hand

JOB                                      STEP      LOSS      TOKENS         ON
ftjob-3f2a9c0d1e4b  ━━━┄┄┄┄┄┄┄┄┄      120/480    2.3146       61440   1 device
)");
}

TEST_CASE("the screen at 32 by 8 keeps what matters most") {
  CHECK("\n" + joined(draw_top(a_busy_platform(), 32, 8, false)) == R"(
tandem at http://127.0.0.1:8000
ttft 612/500 ms! itl 31/100 ms w
serve 812 train 4021 tok/s
DEVICE   ROLE    BUSY  5 MIN
cpu:0-1  serve    76%  ████▓▓▓██
cpu:2-3  train     0%    ···▒▒▒▒
█ serve ▓ shared ▒ train · idle
)");
}

TEST_CASE("no size makes a line too long or too many, colours or not") {
  auto state = a_busy_platform();
  for (int i = 0; i < 30; ++i) {
    state.devices.push_back(state.devices[static_cast<std::size_t>(i) % 2]);
    state.jobs.push_back(state.jobs.front());
  }
  state.trouble = "nobody listens at http://127.0.0.1:8000";
  for (std::size_t width = 1; width < 200; width += 7)
    for (std::size_t height = 1; height < 60; height += 5) {
      const auto lines = draw_top(state, width, height, false);
      CAPTURE(width, height);
      CHECK(lines.size() <= height);
      for (const std::string& line : lines) CHECK(columns_of(line) <= width);
      CHECK(draw_top(state, width, height, true).size() == lines.size());
    }
}

TEST_CASE("more devices and jobs than lines are counted") {
  auto state = a_busy_platform();
  for (int i = 0; i < 30; ++i) state.devices.push_back(state.devices.front());
  const auto text = joined(draw_top(state, 80, 24, false));
  CHECK(text.find("… 19 more devices\n") != std::string::npos);
  CHECK(text.find("ftjob-3f2a9c0d1e4b  ━") != std::string::npos);
}

TEST_CASE("colours are there when they are wanted, and what a server says cannot add any") {
  auto state = a_busy_platform();
  state.devices.front().name = "\x1b[2Jx";
  const auto plain = joined(draw_top(state, 80, 24, false));
  CHECK(plain.find('\x1b') == std::string::npos);
  const auto coloured = joined(draw_top(state, 80, 24, true));
  CHECK(coloured.find("\x1b[1;31m612\x1b[0m") != std::string::npos);
  CHECK(coloured.find("\x1b[2J") == std::string::npos);
}

TEST_CASE("a part of a timeline shows the role that held most of it") {
  const std::vector<top_span> spans = {
      {role::train, 70, 100}, {role::serve, 20, 70}, {std::nullopt, 0, 20}};
  CHECK(timeline(spans, 0, 100, 4) ==
        std::vector<std::optional<role>>{std::nullopt, role::serve, role::serve, role::train});
  CHECK(timeline({}, 0, 100, 2) == std::vector<std::optional<role>>(2));
  CHECK(timeline(spans, 100, 100, 2) == std::vector<std::optional<role>>(2));
  CHECK(timeline(spans, 0, 100, 0).empty());
}

text::value json(const std::string& text) {
  const auto value = text::value::from_json(text);
  REQUIRE(value);
  return *value;
}

text::value leases_at(std::int64_t now_ms, const std::string& role_now, int moves, int trained) {
  return json(R"({"time_ms": )" + std::to_string(now_ms) + R"(, "policy": {"name": "fixed"},
    "service": {}, "moves": )" +
              std::to_string(moves) + R"(, "devices": [{"device": "a", "role": ")" + role_now +
              R"(", "since_ms": 900000, "memory_capacity": 200, "memory_used": 50}],
    "jobs": [{"job": "j", "trained_tokens": )" +
              std::to_string(trained) + "}]}");
}
text::value move_json(int sequence, std::int64_t time_ms, const std::string& from) {
  return json(R"({"data": [{"sequence": )" + std::to_string(sequence) + R"(, "time_ms": )" +
              std::to_string(time_ms) + R"(, "kind": "move", "device": "a", "from": ")" + from +
              R"("}]})");
}
text::value served(int tokens) {
  return json(R"({"devices": [{"tokens_generated": )" + std::to_string(tokens) + "}]}");
}

TEST_CASE("looks add up to timelines and rates") {
  top_memory memory(60'000);
  auto state = memory.look(leases_at(1'000'000, "serve", 0, 0), json("{}"), served(10), 1.0);
  CHECK_FALSE(state.served_per_second);
  CHECK(state.devices.front().memory == 0.25);
  // Known since it took its role; nothing before.
  CHECK(state.devices.front().spans == std::vector<top_span>{{role::serve, 940'000, 1'000'000}});

  state = memory.look(leases_at(1'002'000, "train", 1, 600), move_json(5, 1'001'000, "serve"),
                      served(110), 3.0);
  CHECK(memory.newest() == 5);
  CHECK(state.served_per_second == 50.0);
  CHECK(state.trained_per_second == 300.0);
  CHECK(state.devices.front().spans == std::vector<top_span>{{role::train, 1'001'000, 1'002'000},
                                                             {role::serve, 942'000, 1'001'000}});

  // The same event told again is the same event.
  state = memory.look(leases_at(1'003'000, "train", 1, 600), move_json(5, 1'001'000, "serve"),
                      served(110), 4.0);
  CHECK(state.devices.front().spans.size() == 2);
  CHECK(state.served_per_second == 0.0);
}

TEST_CASE("a platform that was started again is not a negative rate") {
  top_memory memory(60'000);
  memory.look(leases_at(1'000'000, "serve", 4, 900), move_json(9, 999'000, "train"), served(500),
              1.0);
  const auto state = memory.look(leases_at(1'005'000, "serve", 0, 0), json("{}"), served(3), 2.0);
  CHECK_FALSE(state.served_per_second);
  CHECK_FALSE(state.trained_per_second);
  CHECK(memory.newest() == 0);
}

TEST_CASE("off a terminal top prints one plain screen and ends") {
  const scripted_server server([](const seen_request& seen) {
    if (seen.target == "/admin/leases")
      return pieces{json_reply(200, leases_at(1'000'000, "serve", 0, 0).to_json())};
    if (seen.target == "/admin/cluster") return pieces{json_reply(200, served(5).to_json())};
    return pieces{json_reply(200, R"({"data": [], "has_more": false})")};
  });
  const auto run = run_command({"top", "--interval", "0.05", "--address", server.address()});
  CHECK(run.status == 0);
  CHECK(run.err.empty());
  CHECK(run.out.find("tandem at " + server.address()) == 0);
  CHECK(run.out.find("serving 0 tok/s  training 0 tok/s") != std::string::npos);
  CHECK(run.out.find('\x1b') == std::string::npos);
  CHECK(server.requests()[1].target == "/admin/leases/history?limit=1000&after=0");
}

TEST_CASE("top of a platform that is not there says so in one line") {
  const auto run = run_command({"top", "--address", "http://127.0.0.1:1"});
  CHECK(run.status == 1);
  CHECK(run.err.find("nobody listens at http://127.0.0.1:1") != std::string::npos);
}

}  // namespace
