// The file of hosts that `tandem launch --hosts` takes: a line a node, `host [cores] [key=value]…`,
// with # before what is for people.
#pragma once

#include "runtime/result.hpp"

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::gateway::command {

struct host_line {
  std::string host;     // as ssh takes it: a name, an address, a name of ~/.ssh/config, USER@HOST
  int cores = 0;        // at most so many; 0: all
  std::string name;     // of the node
  std::string devices;  // "cpu:0-1"; empty: auto
  std::string tandem;   // the program there; empty: where it lies here, else as the PATH has it
  std::string home;     // $TANDEM_HOME there
  std::vector<std::pair<std::string, std::string>> settings;  // "section.key"
  bool operator==(const host_line&) const = default;
};

inline constexpr std::size_t hosts_max = 63;

// Refusals begin with FILE:LINE. Nodes without a name are called after their hosts, and -2, -3 …
// where a host has several.
result<std::vector<host_line>> parse_hosts(std::string_view text, const std::string& file);
result<std::vector<host_line>> read_hosts(const std::filesystem::path& file);

}  // namespace tandem::gateway::command
