// plot: the exact characters of a known curve, its axes, and the PNG file.
#include "gateway/command/plot_text.hpp"
#include "runtime/text/value.hpp"
#include "tests/support/command_run.hpp"
#include "tests/support/scripted_server.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace {

using namespace tandem;
using namespace tandem::tests;
using namespace tandem::gateway::command;
using pieces = std::vector<std::string>;

std::string metrics(int step, const std::string& numbers) {
  return R"({"id": "e)" + std::to_string(step) + R"(", "type": "metrics", "data": {"step": )" +
         std::to_string(step) + ", " + numbers + "}}";
}

// A straight line from 3 to 1 over 20 steps, measured twice.
pieces straight_line(const seen_request& seen) {
  if (seen.target.find("/events") == std::string::npos) {
    return {json_reply(200, R"({"id": "ftjob-1", "model": "smol", "status": "running"})")};
  }
  std::string rows;
  for (int step = 21; step >= 1; --step) {
    std::string numbers = R"("train_loss": )" + std::to_string(3.0 - 0.1 * (step - 1));
    if (step == 11 || step == 21) numbers += R"(, "valid_loss": 2.5)";
    rows += (rows.empty() ? "" : ", ") + metrics(step, numbers);
  }
  return {json_reply(200, R"({"data": [)" + rows + R"(], "has_more": false})")};
}

command_run plot(const scripted_server& server, std::vector<std::string> words) {
  words.insert(words.begin(), {"plot", "ftjob-1"});
  words.insert(words.end(), {"--address", server.address()});
  command_world world;
  world.environment = {{"COLUMNS", "40"}, {"LINES", "14"}};
  return run_command(words, world);
}

TEST_CASE("a straight line is drawn as one, with numbers on both axes") {
  const scripted_server server(straight_line);
  const auto run = plot(server, {"--ascii"});
  CHECK(run.status == 0);
  CHECK(run.out ==
        "ftjob-1 on smol, running: loss by step\n"
        "3 +***\n"
        "  |  ****\n"
        "  |      *****       o                 o\n"
        "  |          *****\n"
        "  |              ****\n"
        "2 +                  *****\n"
        "  |                      ****\n"
        "  |                          *****\n"
        "  |                              *****\n"
        "1 +                                  ***\n"
        "  +----------------+-----------------+--\n"
        "                  10                20\n"
        "* training 1.0000   o validation 2.5000\n");
  const auto braille = plot(server, {});
  CHECK(braille.out ==
        "ftjob-1 on smol, running: loss by step\n"
        "3 ┤⠢⢄⡀\n"
        "  │  ⠈⠑⠤⣀\n"
        "  │      ⠉⠒⠢⢄⡀       o                 o\n"
        "  │          ⠈⠑⠢⢄⡀\n"
        "  │              ⠈⠒⠤⣀\n"
        "2 ┤                  ⠉⠑⠢⢄⡀\n"
        "  │                      ⠈⠑⠤⣀\n"
        "  │                          ⠉⠒⠢⢄⡀\n"
        "  │                              ⠈⠑⠢⢄⡀\n"
        "1 ┤                                  ⠈⠒⠤\n"
        "  └────────────────┬─────────────────┬──\n"
        "                  10                20\n"
        "⠒ training 1.0000   o validation 2.5000\n");
}

TEST_CASE("a pipe gets 80 by 24") {
  const scripted_server server(straight_line);
  const auto run = run_command({"plot", "ftjob-1", "--address", server.address()});
  std::istringstream lines(run.out);
  int rows = 0;
  for (std::string line; std::getline(lines, line); ++rows) {
    const auto width = std::ranges::count_if(
        line, [](char c) { return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U; });
    CAPTURE(line);
    CHECK(width <= 80);
  }
  CHECK(rows == 24);
}

TEST_CASE("a curve may be one point, level, far below zero, or enormous") {
  for (const loss_curve& curve :
       {loss_curve{{{1, 2.0}}, {}}, loss_curve{{}, {{5, 0.0}}},
        loss_curve{{{1, 3.0}, {9, 3.0}}, {}}, loss_curve{{{1, -5e3}, {2, -4e3}}, {}},
        loss_curve{{{1, 1e300}, {2, 1e-300}}, {}}}) {
    const std::string text = plot_as_text(curve, "t", {40, 12}, {});
    CAPTURE(text);
    CHECK(std::ranges::count(text, '\n') == 12);
  }
}

TEST_CASE("axes have round numbers inside their range") {
  const loss_curve curve{{{1, 3.17}, {1000, 0.42}}, {}};
  const axis losses = loss_axis(curve, 6);
  REQUIRE(losses.ticks.size() == 6);
  CHECK(losses.label(losses.ticks.front()) == "0.5");
  CHECK(losses.label(losses.ticks.back()) == "3.0");
  const axis steps = step_axis(curve, 6);
  CHECK(steps.label(steps.ticks.front()) == "200");
  CHECK(steps.label(steps.ticks.back()) == "1000");
  const axis one = step_axis({{{7, 1.0}}, {}}, 6);
  CHECK(one.label(one.ticks.front()) == "7");
}

TEST_CASE("steps computed again after a resume replace the first ones") {
  std::vector<job_event> events;
  for (const auto& [step, loss] :
       std::vector<std::pair<int, int>>{{1, 5}, {2, 4}, {3, 9}, {2, 3}}) {
    events.push_back(event_from(
        *text::value::from_json(metrics(step, R"("train_loss": )" + std::to_string(loss)))));
  }
  CHECK(curve_from(events).train == std::vector<loss_point>{{1, 5}, {2, 3}});
}

TEST_CASE("plot --json gives the points") {
  const scripted_server server(straight_line);
  const auto json = text::value::from_json(plot(server, {"--json"}).out);
  REQUIRE(json);
  CHECK(json->find("train")->if_array()->size() == 21);
  CHECK(json->find("valid")->if_array()->size() == 2);
}

TEST_CASE("a job without losses is refused with what it is doing") {
  const scripted_server server([](const seen_request& seen) -> pieces {
    return {json_reply(200, seen.target.find("/events") == std::string::npos
                                ? R"({"id": "ftjob-1", "status": "queued"})"
                                : R"({"data": [], "has_more": false})")};
  });
  const auto run = plot(server, {});
  CHECK(run.status == 1);
  CHECK(run.err == "tandem: ftjob-1 has no losses yet: it is queued\n");
}

TEST_CASE("plot --png writes a picture, or says why it cannot") {
  const scripted_server server(straight_line);
  const scratch_folder folder;
  const std::string path = (folder.path() / "loss.png").string();
#ifdef TANDEM_CAIRO
  const auto run = plot(server, {"--png", path});
  CHECK(run.status == 0);
  CHECK(run.out == path + "\n");
  std::ifstream in(path, std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(in), {});
  REQUIRE(bytes.size() > 1000);
  CHECK(bytes.substr(0, 8) == "\x89PNG\r\n\x1a\n");
  CHECK(bytes.substr(16, 8) == std::string("\0\0\x04\xb0\0\0\x02\xa3", 8));  // 1200 by 675
  const auto refused = plot(server, {"--png", "/nonexistent/loss.png"});
  CHECK(refused.status == 1);
  CHECK(refused.err.find("cannot write /nonexistent/loss.png: ") != std::string::npos);
#else
  const auto run = plot(server, {"--png", path});
  CHECK(run.status == 1);
  CHECK(run.err.find("libcairo2-dev") != std::string::npos);
#endif
}

}  // namespace
