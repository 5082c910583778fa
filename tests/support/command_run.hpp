// Runs one command line as a person would and keeps what it printed.
#pragma once

#include "gateway/command/command_line.hpp"

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace tandem::tests {

struct command_run {
  int status = -1;
  std::string out;
  std::string err;
};

struct command_world {
  std::string input;
  std::vector<std::pair<std::string, std::string>> environment;
  std::filesystem::path home = "/nonexistent/tandem";
  std::function<int(const gateway::platform_options&)> run_platform;
};

inline command_run run_command(const std::vector<std::string>& arguments,
                               const command_world& world = {}) {
  std::istringstream in(world.input);
  std::ostringstream out;
  std::ostringstream err;
  gateway::command::console io{
      in, out, err, false, false, false, world.environment, world.home, world.run_platform};
  const int status = gateway::command::run_command_line(arguments, io);
  return {status, out.str(), err.str()};
}

// A folder that lives as long as the test.
class scratch_folder {
 public:
  scratch_folder() {
    std::string name = (std::filesystem::temp_directory_path() / "tandem_test_XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("no scratch folder");
    path_ = name;
  }
  ~scratch_folder() { std::filesystem::remove_all(path_); }
  scratch_folder(const scratch_folder&) = delete;
  scratch_folder& operator=(const scratch_folder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace tandem::tests
