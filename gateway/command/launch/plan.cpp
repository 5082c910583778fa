#include "gateway/command/launch/plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace tandem::gateway::command {
namespace {

std::string range_name(const std::vector<int>& cores) {
  // A device's name is a range; of cores with a gap between them each is a device.
  if (cores.back() - cores.front() + 1 == static_cast<int>(cores.size()))
    return fmt::format("cpu:{}-{}", cores.front(), cores.back());
  std::vector<std::string> names;
  for (const int core : cores) names.push_back(fmt::format("cpu:{}", core));
  return fmt::format("{}", fmt::join(names, ","));
}

result<std::vector<words_list>> dealt(int count, const words_list& listed) {
  const auto nodes = static_cast<std::size_t>(count);
  if (listed.size() % nodes != 0)
    return error{errc::bad_request,
                 fmt::format("{} devices cannot be dealt to {} nodes: list as many for each",
                             listed.size(), count),
                 "devices.list"};
  const std::size_t each = listed.size() / nodes;
  std::vector<words_list> shares;
  for (std::size_t n = 0; n < nodes; ++n)
    shares.emplace_back(listed.begin() + static_cast<std::ptrdiff_t>(n * each),
                        listed.begin() + static_cast<std::ptrdiff_t>((n + 1) * each));
  return shares;
}

words_list set(const std::string& key, const std::string& to) {
  return {"--set", fmt::format("{}={}", key, to)};
}

void append(words_list& to, const words_list& more) {
  to.insert(to.end(), more.begin(), more.end());
}

}  // namespace

result<std::vector<words_list>> shares_of(int count, const words_list& listed, int cores_each,
                                          const std::vector<int>& cores) {
  ensure(count > 0 && !cores.empty(), "no nodes, or a machine without cores");
  std::vector<words_list> shares;
  if (!listed.empty() && listed != words_list{"auto"}) {
    if (cores_each > 0)
      return error{errc::bad_request, "--cores and --devices both say what a node gets: give one",
                   "devices.list"};
    auto some = dealt(count, listed);
    if (!some) return some.error();
    shares = *std::move(some);
  } else {
    const auto all = static_cast<int>(cores.size());
    if (cores_each > all)
      return error{errc::bad_request,
                   fmt::format("--cores {}: this process may use {}", cores_each, all), "cores"};
    const int each = cores_each > 0 ? cores_each : std::max(1, all / count);
    for (int first = 0; first + each <= all; first += each)
      shares.push_back({range_name({cores.begin() + first, cores.begin() + first + each})});
  }
  const std::size_t distinct = shares.size();
  while (shares.size() < launched_nodes_max) shares.push_back(shares[shares.size() % distinct]);
  return shares;
}

words_list settings_of_nodes(const settings& configuration) {
  const std::pair<const char*, std::string> shared[] = {
      {"devices.isolation", configuration.devices.isolation},
      {"devices.threads_per_device", fmt::format("{}", configuration.devices.threads_per_device)},
      {"model.tensor_parallel", fmt::format("{}", configuration.model.tensor_parallel)},
      {"cluster.heartbeat_ms", fmt::format("{}", configuration.cluster.heartbeat_ms)},
      {"server.drain_timeout_ms", fmt::format("{}", configuration.server.drain_timeout_ms)},
      {"log.level", configuration.log.level},
  };
  words_list words;
  for (const auto& [key, text] : shared) {
    const auto origin = configuration.origins.find(key);
    if (origin != configuration.origins.end() && origin->second != "default")
      append(words, set(key, text));
  }
  return words;
}

node_recipe head_recipe(const launch_settings& given, words_list devices) {
  node_recipe head;
  head.name = "head";
  head.where = fmt::format("{}", fmt::join(devices, ","));
  head.start = {"tandem", "up"};
  append(head.start, given.of_head);
  // --set: the last one wins, over options too.
  append(head.start, set("model.path", given.configuration.model.path));
  append(head.start, set("server.port", "{port}"));
  append(head.start, set("devices.list", head.where));
  append(head.start, set("cluster.listen", "{listen}"));
  append(head.start, set("cluster.secret_file", given.configuration.cluster.secret_file));
  append(head.start, set("log.file", ""));  // its lines are read where the launcher keeps them
  return head;
}

result<launch_plan> local_plan(int count, int cores_each, const launch_settings& given,
                               const std::vector<int>& cores) {
  const auto& configuration = given.configuration;
  if (count < 1 || static_cast<std::size_t>(count) > launched_nodes_max)
    return error{errc::bad_request,
                 fmt::format("--local {}: give 1 to {} nodes", count, launched_nodes_max), "local"};
  const auto shares = shares_of(count, configuration.devices.list, cores_each, cores);
  if (!shares) return shares.error();
  const auto memory = set("devices.memory_fraction", "{memory}");
  launch_plan plan;
  plan.what = "this machine";
  plan.listen = configuration.cluster.listen.empty() ? "127.0.0.1:0" : configuration.cluster.listen;
  plan.port = configuration.server.port;
  plan.secret_file = configuration.cluster.secret_file;
  plan.memory_fraction = configuration.devices.memory_fraction;
  plan.drain_timeout_ms = configuration.server.drain_timeout_ms;
  plan.nodes.push_back(head_recipe(given, shares->front()));
  append(plan.nodes.front().start, memory);
  for (std::size_t n = 1; n < launched_nodes_max; ++n) {
    node_recipe node;
    node.name = fmt::format("node{}", n + 1);
    node.where = fmt::format("{}", fmt::join((*shares)[n], ","));
    node.start = {"tandem",   "join",          "{cluster}",
                  "--name",   node.name,       "--devices",
                  node.where, "--secret-file", configuration.cluster.secret_file};
    append(node.start, settings_of_nodes(configuration));
    append(node.start, set("server.port", "0"));  // the head has the one of this machine
    append(node.start, memory);
    plan.nodes.push_back(std::move(node));
  }
  return plan;
}

}  // namespace tandem::gateway::command
