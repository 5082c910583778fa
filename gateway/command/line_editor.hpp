// One line from a person: edited and with a history (libedit) on a terminal, plain elsewhere.
#pragma once

#include "gateway/command/console.hpp"

#include <optional>
#include <string>

namespace tandem::gateway::command {

// The next line without its end; nothing at the end of input. `prompt` is shown on a terminal only.
std::optional<std::string> read_line(const console& io, const std::string& prompt);

}  // namespace tandem::gateway::command
