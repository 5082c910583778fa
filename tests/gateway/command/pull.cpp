#include "gateway/command/progress_line.hpp"
#include "tests/support/command_run.hpp"
#include "tests/support/scripted_server.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace {

using namespace tandem::tests;
using namespace std::chrono_literals;
using tandem::gateway::command::progress_line;
using pieces = std::vector<std::string>;

constexpr std::chrono::steady_clock::time_point begin{};

TEST_CASE("progress off a terminal is a plain line each tenth, with the speed once it is known") {
  std::ostringstream out;
  {
    progress_line line(out, false);
    for (std::uint64_t percent = 0; percent <= 100; ++percent) {
      line.show("m.gguf", percent * 1'000'000, 100'000'000, begin + percent * 20ms);
    }
  }
  CHECK(std::ranges::count(out.str(), '\n') == 11);
  CHECK(out.str().find("m.gguf: 0 B of 100 MB\n") == 0);
  CHECK(out.str().ends_with("m.gguf: 100 MB of 100 MB, 50.0 MB/s\n"));
  CHECK(out.str().find('\r') == std::string::npos);
}

TEST_CASE("progress on a terminal is one bar, redrawn at most ten times a second") {
  std::ostringstream out;
  {
    progress_line line(out, true);
    for (int i = 0; i < 1000; ++i) line.show("m", 5, 1000, begin + i * 1ms);
  }
  CHECK(std::ranges::count(out.str(), '\r') == 10);
  CHECK(std::ranges::count(out.str(), '\n') == 1);
}

TEST_CASE("the speed does not count what an earlier run had fetched") {
  std::ostringstream out;
  progress_line line(out, false);
  line.show("m", 90'000'000, 100'000'000, begin);
  line.show("m", 100'000'000, 100'000'000, begin + 10s);
  CHECK(out.str().find(", 1.0 MB/s\n") != std::string::npos);
}

TEST_CASE("progress of unknown size shows what came") {
  std::ostringstream out;
  progress_line(out, false).show("m", 2000, 0, begin);
  CHECK(out.str() == "m: 2.0 kB\n");
}

// A hub with one repository of one GGUF file, which says nothing of its checksum.
pieces small_hub(const seen_request& seen) {
  if (seen.target.starts_with("/api/models/org/name/")) {
    return {json_reply(200, R"({"siblings": [{"rfilename": "m.Q8_0.gguf", "size": 5}]})")};
  }
  if (seen.target.ends_with("/m.Q8_0.gguf")) return {json_reply(200, "12345")};
  return {json_reply(404, R"({"error": "Repository not found"})")};
}

TEST_CASE("pull puts the model under the home and prints its path") {
  const scratch_folder home;
  const scripted_server hub(small_hub);
  command_world world;
  world.home = home.path();
  world.environment = {{"HF_ENDPOINT", hub.address()}, {"HF_TOKEN", "hf_secret"}};
  const auto run = run_command({"pull", "org/name"}, world);
  CAPTURE(run.err);
  CHECK(run.status == 0);
  const std::filesystem::path path = run.out.substr(0, run.out.find('\n'));
  CHECK(path == home.path() / "models" / "org" / "name" / "m.Q8_0.gguf");
  CHECK(std::filesystem::file_size(path) == 5);
  CHECK(hub.requests().front().authorization == "Bearer hf_secret");
  CHECK(run.err.find("m.Q8_0.gguf: ") != std::string::npos);
}

TEST_CASE("pull of what is not there is one line and exit status 1") {
  const scratch_folder home;
  const scripted_server hub(small_hub);
  command_world world;
  world.home = home.path();
  world.environment = {{"HF_ENDPOINT", hub.address()}};
  const auto run = run_command({"pull", "org/other"}, world);
  CHECK(run.status == 1);
  CHECK(run.out.empty());
  CHECK(std::ranges::count(run.err, '\n') == 1);
  CHECK(run.err.find("org/other") != std::string::npos);
  CHECK(run_command({"pull", "../../etc/passwd"}, world).status == 1);
  CHECK(run_command({"pull"}, world).status == 2);
}

}  // namespace
