#include "runtime/log.hpp"

#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include <unistd.h>

using namespace tandem;

namespace {

// A log file for one test; the log goes back to stderr afterwards.
struct log_file {
  std::string path =
      (std::filesystem::temp_directory_path() / ("tandem-log-" + std::to_string(getpid()) + ".txt"))
          .string();
  ~log_file() {
    (void)open_log(log_level::info, "");
    std::filesystem::remove(path);
  }
  std::string text() const {
    (void)open_log(log_level::info, "");  // flushes
    std::ostringstream out;
    out << std::ifstream(path).rdbuf();
    return out.str();
  }
};

}  // namespace

TEST_CASE("a line says when in UTC, how grave and what") {
  log_file file;
  REQUIRE(open_log(log_level::info, file.path));
  log_warning("{} of {} places are taken", 256, 256);
  CHECK(
      std::regex_match(file.text(), std::regex(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warning )"
                                               R"(256 of 256 places are taken\n)")));
}

TEST_CASE("lines below the level are not written") {
  log_file file;
  REQUIRE(open_log(log_level::warning, file.path));
  CHECK_FALSE(log_shows(log_level::info));
  log_info("hidden");
  log_error("shown");
  const std::string text = file.text();
  CHECK(text.find("hidden") == std::string::npos);
  CHECK(text.find("error   shown\n") != std::string::npos);
}

TEST_CASE("what a user wrote stays on its line") {
  log_file file;
  REQUIRE(open_log(log_level::info, file.path));
  log_info("model \"{}\" is not known", "x\n2026-01-01T00:00:00.000Z error root: gone\x1b[2J");
  const std::string text = file.text();
  CHECK(std::count(text.begin(), text.end(), '\n') == 1);
  CHECK(text.find("x\\n2026") != std::string::npos);
  CHECK(text.find("\\x1b[2J") != std::string::npos);
}

TEST_CASE("a level is known by its name, and a wrong name is told what there is") {
  CHECK(*parse_log_level("debug") == log_level::debug);
  CHECK(*parse_log_level("warn") == log_level::warning);
  const auto wrong = parse_log_level("verbose");
  REQUIRE_FALSE(wrong);
  CHECK(wrong.error().code == errc::bad_request);
  CHECK(wrong.error().detail.find("trace, debug, info, warning, error or off") !=
        std::string::npos);
}

TEST_CASE("a log file that cannot be opened is refused and the old one kept") {
  log_file file;
  REQUIRE(open_log(log_level::info, file.path));
  const auto refused = open_log(log_level::info, "/proc/no/such/place/log.txt");
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::io);
  log_warning("still here");
  CHECK(file.text().find("still here") != std::string::npos);
}
