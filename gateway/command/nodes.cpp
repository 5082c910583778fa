// `tandem nodes` and `tandem drain`: who is in the cluster, and taking one out.
#include "gateway/command/commands.hpp"
#include "gateway/command/json_view.hpp"
#include "gateway/command/print.hpp"

#include <chrono>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

namespace tandem::gateway::command {
namespace {

using text::value;

std::string devices_of(const value& node) {
  std::string all;
  for (const value& device : list(member(node, "devices")))
    all += (all.empty() ? "" : ", ") + words(device);
  return all;
}

void print_nodes(std::ostream& out, const value& nodes) {
  using namespace std::chrono;
  const std::int64_t now_ms =
      duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
  std::vector<std::vector<std::string>> rows = {
      {"NODE", "ADDRESS", "STATE", "SINCE", "DEVICES", "WHY"}};
  for (const value& node : list(member(nodes, "data"))) {
    const std::int64_t since_ms = integer_or(member(node, "since_ms"), now_ms);
    rows.push_back({words(member(node, "name")), words(member(node, "address")),
                    words(member(node, "state")), human_duration((now_ms - since_ms) / 1000),
                    devices_of(node), words(member(node, "why"))});
  }
  print_table(out, rows);
  out << std::flush;
}

int run_nodes(const invocation& call) {
  auto client = connect(call);
  if (!client) return refuse_usage(call.io, client.error().detail);
  const auto nodes = client->get_json("/admin/nodes");
  if (!nodes) return refuse(call.io, nodes.error());
  if (call.json)
    call.io.out << nodes->to_json() << std::endl;
  else
    print_nodes(call.io.out, *nodes);
  return done;
}

int run_drain(const invocation& call, const std::string& node) {
  auto client = connect(call);
  if (!client) return refuse_usage(call.io, client.error().detail);
  const auto drained = client->post_json("/admin/nodes/" + node + "/drain", "");
  if (!drained) return refuse(call.io, drained.error());
  if (call.json)
    call.io.out << drained->to_json() << std::endl;
  else
    call.io.out << node << " is drained and ends" << std::endl;
  return done;
}

}  // namespace

void add_nodes(CLI::App& app, invocation& call) {
  CLI::App* command =
      add_command(app, "nodes", "Who is in the cluster, with which devices", "tandem nodes --json");
  add_server_options(*command, call);
  add_json_option(*command, call);
  command->callback([&call] { call.status = run_nodes(call); });
}

void add_drain(CLI::App& app, invocation& call) {
  CLI::App* command = add_command(app, "drain", "Take a node out of the cluster",
                                  "tandem drain node2\n\nIts requests go on elsewhere, or are "
                                  "finished there first; then its process ends.");
  add_server_options(*command, call);
  add_json_option(*command, call);
  auto node = std::make_shared<std::string>();
  command->add_option("NODE", *node, "As `tandem nodes` names it")->required();
  command->callback([node, &call] { call.status = run_drain(call, *node); });
}

}  // namespace tandem::gateway::command
