// What a launched cluster consists of, as data: for each node the commands that start and end it.
// Made once from options and settings; the launcher runs it and knows no more than this.
#pragma once

#include "runtime/result.hpp"
#include "runtime/settings.hpp"

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace tandem::gateway::command {

using words_list = std::vector<std::string>;

// A command's first word "tandem" means this very program. In the others {cluster} stands for the
// address that nodes join at, {listen} for the one the head opens, {port} for its HTTP port,
// {memory} for the share of a machine's memory of one of its nodes, {process} for what a node said
// its process is elsewhere, {before} for the one before that.
struct node_recipe {
  std::string name;   // "head", "node2"
  std::string where;  // for people: "cpu:0-1", "10.0.0.2"
  words_list start;
  words_list stop;            // asks it to end; empty: SIGTERM to what was started
  words_list kill;            // and if it does not: SIGKILL
  bool takes_secret = false;  // it reads the secret from its input
  bool operator==(const node_recipe&) const = default;
};

struct launch_plan {
  std::string what;                // "this machine", "3 hosts of FILE"
  std::vector<node_recipe> nodes;  // the head first; as many as there can be
  std::string directory;           // where it was launched
  bool has_spares = false;         // another node takes the place of one that stays down
  std::string listen;              // of the head at its first start
  int port = 0;
  double memory_fraction = 0;  // of all nodes of one machine together
  std::string secret_file;
  int drain_timeout_ms = 0;
  bool operator==(const launch_plan&) const = default;
};

// What `tandem up` and `tandem join` of the cluster are given beside what the plan decides.
struct launch_settings {
  settings configuration;
  words_list of_head;  // --config and --set, as they were written
};

inline constexpr std::size_t launched_nodes_max = 64;

// The devices of `count` nodes on these cores: `listed` (devices.list) dealt out in order, or
// without one equal ranges; `cores_each` 0: all of them shared by `count`. Nodes beyond the cores,
// up to `launched_nodes_max`, take them in turn again.
result<std::vector<words_list>> shares_of(int count, const words_list& listed, int cores_each,
                                          const std::vector<int>& cores);

// Nodes as processes of this machine.
result<launch_plan> local_plan(int count, int cores_each, const launch_settings& given,
                               const std::vector<int>& cores);

// Of `tandem join` on any machine: what of the settings nodes share.
words_list settings_of_nodes(const settings& configuration);
// The head's recipe, on this machine.
node_recipe head_recipe(const launch_settings& given, words_list devices);

}  // namespace tandem::gateway::command
