// An order to a launcher, followed until it is carried out: what happens to each node is told.
#pragma once

#include "gateway/command/console.hpp"
#include "gateway/command/launch/files.hpp"

#include <string>

namespace tandem::gateway::command {

struct followed_order {
  int status = done;
  launch_record record;  // as it was last
};

// `wanted` nodes, by the order of that name. When no launcher is there one is started, in the
// background. Refusals are already printed. `quiet`: only those.
followed_order follow_order(const console& io, const launch_files& files, int wanted,
                            const std::string& order, bool quiet);

}  // namespace tandem::gateway::command
