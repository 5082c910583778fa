// The launcher: runs the plan of a launched cluster until nobody is wanted any more. It starts,
// watches and ends the nodes' processes as the book orders, and keeps the record. Its own death
// harms no node: the next launcher takes over what runs.
#pragma once

#include "gateway/command/console.hpp"
#include "gateway/command/launch/files.hpp"

#include <optional>

namespace tandem::gateway::command {

// `files` are locked by this process. The exit status.
int run_launcher(const console& io, const launch_files& files, launch_record record);

// A launcher in the background for the record in `files`, which nobody has locked; its lines go to
// launcher.log there.
result<std::unique_ptr<node_process>> start_launcher(const launch_files& files);

}  // namespace tandem::gateway::command
