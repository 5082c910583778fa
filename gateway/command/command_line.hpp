// The command line of `tandem`: which commands there are, and what a slip of the pen is told.
#pragma once

#include "gateway/command/console.hpp"

#include <string>
#include <vector>

namespace tandem::gateway::command {

// `arguments` without the program's name; the exit status.
int run_command_line(const std::vector<std::string>& arguments, console& io);

// The names of the commands that work, in the order of --help.
std::vector<std::string> command_names();

}  // namespace tandem::gateway::command
