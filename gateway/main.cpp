// The `tandem` binary: the real streams, environment and signals around the command line.
#include "gateway/command/command_line.hpp"
#include "gateway/platform.hpp"

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <iostream>

extern char** environ;

namespace {

using tandem::gateway::command::our_fault;

// A broken invariant has already said its line; the exit status says whose fault it was.
extern "C" void end_as_our_fault(int) { _exit(our_fault); }

std::vector<std::pair<std::string, std::string>> environment() {
  std::vector<std::pair<std::string, std::string>> all;
  for (char** entry = environ; *entry; ++entry) {
    const std::string_view text = *entry;
    const std::size_t equals = text.find('=');
    if (equals == std::string_view::npos) continue;
    all.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  }
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGABRT, end_as_our_fault);
  std::signal(SIGPIPE, SIG_IGN);  // a reader that left is seen as a failed write
  std::ios::sync_with_stdio(false);
  tandem::gateway::command::console io{std::cin,
                                       std::cout,
                                       std::cerr,
                                       ::isatty(STDIN_FILENO) == 1,
                                       ::isatty(STDOUT_FILENO) == 1,
                                       ::isatty(STDERR_FILENO) == 1,
                                       environment(),
                                       tandem::tandem_home(),
                                       tandem::gateway::run_platform,
                                       tandem::gateway::run_join,
                                       tandem::gateway::run_worker};
  try {
    return tandem::gateway::command::run_command_line({argv + 1, argv + argc}, io);
  } catch (const std::exception& fault) {
    std::fprintf(stderr, "tandem: unexpected fault: %s\n", fault.what());
    return our_fault;
  }
}
