// The world as a command sees it: streams, environment and folders. `main` gives the real ones,
// tests their own.
#pragma once

#include "gateway/platform.hpp"
#include "runtime/result.hpp"

#include <filesystem>
#include <functional>
#include <iosfwd>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::gateway::command {

// What the shell is told. A crash of ours ends with `our_fault` as well (main.cpp).
enum exit_status : int { done = 0, world_said_no = 1, wrong_usage = 2, our_fault = 3 };

struct console {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool in_is_terminal = false;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
  std::vector<std::pair<std::string, std::string>> environment;
  std::filesystem::path home;  // $TANDEM_HOME
  std::function<int(const platform_options&)> run_platform;
  std::function<int(const join_options&)> run_join = {};
  std::function<int()> run_worker = {};
};

// The variable's value; empty when it is not set.
std::string_view environment_value(const console& io, std::string_view name);

// Prints the one line of an error to stderr; the exit status that goes with it.
int refuse(const console& io, const error& why);
// The same for a command line that makes no sense.
int refuse_usage(const console& io, std::string_view why);

}  // namespace tandem::gateway::command
