// The size of the terminal that a command prints to.
#pragma once

#include "gateway/command/console.hpp"

#include <cstddef>

namespace tandem::gateway::command {

struct terminal_size {
  std::size_t columns = 80;
  std::size_t rows = 24;
};

// $COLUMNS and $LINES where they are set, then what the terminal says; 80 by 24 for a pipe.
terminal_size size_of_terminal(const console& io);

}  // namespace tandem::gateway::command
