// JSON lines in, JSON lines out: one answer for each line, also for a line that is refused.
#pragma once

#include "gateway/command/console.hpp"
#include "runtime/text/value.hpp"

#include <functional>

namespace tandem::gateway::command {

// Calls `answer` with each line's object and prints what it gives; a line that is no JSON object,
// and an answer that is an error, prints {"error": "..."} instead. Empty lines are passed over.
// `done` when every line was a JSON object, else `world_said_no`; with `errors_count`, refused
// answers count as failures too.
int for_each_json_line(const console& io, bool errors_count,
                       const std::function<result<text::value>(const text::value&)>& answer);

}  // namespace tandem::gateway::command
