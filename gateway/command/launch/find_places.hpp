// Where the nodes of a launched cluster go on other machines: asked of the file of hosts and of
// this machine's routes, or of Slurm.
#pragma once

#include "gateway/command/console.hpp"
#include "gateway/command/launch/plan.hpp"

#include <chrono>
#include <filesystem>
#include <string>

namespace tandem::gateway::command {

inline constexpr auto slurm_answers_within = std::chrono::seconds(30);

std::filesystem::path this_program();

// `ssh` is the command with its options, words with spaces between them.
result<launch_plan> plan_of_hosts(const std::string& file, const std::string& ssh,
                                  const launch_settings& given);
// Of the allocation of Slurm that this process runs in.
result<launch_plan> plan_of_allocation(const console& io, const launch_settings& given);

}  // namespace tandem::gateway::command
