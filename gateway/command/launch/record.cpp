// The record of a launched cluster as JSON, and back.
#include "gateway/command/json_view.hpp"
#include "gateway/command/launch/files.hpp"

#include <fmt/format.h>

namespace tandem::gateway::command {
namespace {

using text::value;

value list_of(const words_list& words) {
  value::array all;
  for (const auto& word : words) all.emplace_back(word);
  return all;
}

words_list words_of(const value& from) {
  words_list all;
  for (const auto& word : list(from)) all.push_back(words(word));
  return all;
}

value json_of(const node_recipe& recipe) {
  return value::object{{"name", recipe.name},
                       {"where", recipe.where},
                       {"start", list_of(recipe.start)},
                       {"stop", list_of(recipe.stop)},
                       {"kill", list_of(recipe.kill)},
                       {"takes_secret", recipe.takes_secret}};
}

bool is_true(const value& v) { return v.if_bool() && *v.if_bool(); }

}  // namespace

std::string to_json(const launch_record& record) {
  const auto& plan = record.plan;
  value::array recipes;
  for (const auto& recipe : plan.nodes) recipes.push_back(json_of(recipe));
  value::array nodes;
  for (const auto& node : record.nodes)
    nodes.push_back(value::object{{"pid", std::int64_t{node.process.pid}},
                                  {"started", static_cast<std::int64_t>(node.process.started)},
                                  {"boot", node.process.boot},
                                  {"state", node.state},
                                  {"elsewhere", node.elsewhere},
                                  {"why", node.why}});
  return value(value::object{{"what", plan.what},
                             {"directory", plan.directory},
                             {"has_spares", plan.has_spares},
                             {"listen", plan.listen},
                             {"port", plan.port},
                             {"memory_fraction", plan.memory_fraction},
                             {"secret_file", plan.secret_file},
                             {"drain_timeout_ms", plan.drain_timeout_ms},
                             {"recipes", std::move(recipes)},
                             {"order", record.order},
                             {"settled", record.settled},
                             {"cluster_address", record.cluster_address},
                             {"http_address", record.http_address},
                             {"nodes", std::move(nodes)}})
      .to_json();
}

result<launch_record> record_from(std::string_view json) {
  const auto read = value::from_json(json);
  if (!read) return read.error();
  launch_record record;
  auto& plan = record.plan;
  plan.what = words(member(*read, "what"));
  plan.directory = words(member(*read, "directory"));
  plan.has_spares = is_true(member(*read, "has_spares"));
  plan.listen = words(member(*read, "listen"));
  plan.port = static_cast<int>(integer_or(member(*read, "port"), 0));
  plan.memory_fraction = number_or(member(*read, "memory_fraction"), 0.5);
  plan.secret_file = words(member(*read, "secret_file"));
  plan.drain_timeout_ms = static_cast<int>(integer_or(member(*read, "drain_timeout_ms"), 30'000));
  for (const auto& one : list(member(*read, "recipes"))) {
    node_recipe recipe;
    recipe.name = words(member(one, "name"));
    recipe.where = words(member(one, "where"));
    recipe.start = words_of(member(one, "start"));
    recipe.stop = words_of(member(one, "stop"));
    recipe.kill = words_of(member(one, "kill"));
    recipe.takes_secret = is_true(member(one, "takes_secret"));
    if (recipe.name.empty() || recipe.start.empty())
      return error{errc::bad_file, "a node without a name or a command", {}};
    plan.nodes.push_back(std::move(recipe));
  }
  record.order = words(member(*read, "order"));
  record.settled = is_true(member(*read, "settled"));
  record.cluster_address = words(member(*read, "cluster_address"));
  record.http_address = words(member(*read, "http_address"));
  for (const auto& one : list(member(*read, "nodes"))) {
    launch_record::node node;
    node.process.pid = static_cast<pid_t>(integer_or(member(one, "pid"), 0));
    node.process.started = static_cast<std::uint64_t>(integer_or(member(one, "started"), 0));
    node.process.boot = words(member(one, "boot"));
    node.state = words(member(one, "state"));
    node.elsewhere = words(member(one, "elsewhere"));
    node.why = words(member(one, "why"));
    record.nodes.push_back(std::move(node));
  }
  if (plan.nodes.empty() || record.nodes.size() != plan.nodes.size())
    return error{errc::bad_file,
                 fmt::format("{} nodes for {} recipes", record.nodes.size(), plan.nodes.size()),
                 {}};
  return record;
}

}  // namespace tandem::gateway::command
