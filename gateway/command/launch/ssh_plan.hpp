// Nodes on other machines, each started by ssh: what is run there, and what its failure means.
#pragma once

#include "gateway/command/launch/hosts_file.hpp"
#include "gateway/command/launch/plan.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace tandem::gateway::command {

struct ssh_options {
  words_list ssh = {"ssh"};  // the command, with options of its own
  std::string program;       // this one's path: tried there first
  std::string listen;        // where the head is reached from the hosts
};

// The head here with all devices of this machine, and the hosts' nodes.
launch_plan ssh_plan(const std::vector<host_line>& hosts, const ssh_options& how,
                     const launch_settings& given, const std::string& file);

// What a line that ssh says means for whoever waits for the node; empty: nothing.
std::string ssh_complaint(std::string_view line);

// In single quotes, as a POSIX shell reads it.
std::string in_quotes(std::string_view word);

}  // namespace tandem::gateway::command
