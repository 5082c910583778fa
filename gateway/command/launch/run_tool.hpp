// A short command of another program, run to its end.
#pragma once

#include "gateway/command/launch/plan.hpp"
#include "runtime/result.hpp"

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

namespace tandem::gateway::command {

// Its lines, once it ended well; `log` keeps them. Refused: it could not be started, ended with
// another status (with the last line it said), or ran longer than `within`.
result<std::vector<std::string>> run_tool(const words_list& command,
                                          const std::filesystem::path& log,
                                          std::chrono::seconds within);

}  // namespace tandem::gateway::command
