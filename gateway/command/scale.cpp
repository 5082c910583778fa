// `tandem scale`: how many nodes a launched cluster has.
#include "gateway/command/commands.hpp"
#include "gateway/command/launch/files.hpp"
#include "gateway/command/launch/follow_order.hpp"

#include <fmt/format.h>

#include <memory>
#include <ostream>

namespace tandem::gateway::command {
namespace {

using text::value;

value json_of(const launch_record& record, int wanted) {
  value::array nodes;
  for (std::size_t n = 0; n < record.nodes.size(); ++n) {
    if (record.nodes[n].state == "absent") continue;
    nodes.push_back(value::object{{"name", record.plan.nodes[n].name},
                                  {"where", record.plan.nodes[n].where},
                                  {"state", record.nodes[n].state},
                                  {"why", record.nodes[n].why}});
  }
  return value::object{{"wanted", wanted}, {"nodes", std::move(nodes)}};
}

int run_scale(const invocation& call, int wanted) {
  const console& io = call.io;
  const launch_files files(io.home);
  const auto record = files.read();
  if (!record) return refuse(io, record.error());
  if (!*record || (!files.has_launcher() && files.running(**record).empty()))
    return refuse(io, {errc::not_found,
                       fmt::format("no cluster that was launched from {} runs: `tandem launch`",
                                   io.home.string()),
                       {}});
  const auto room = (*record)->plan.nodes.size();
  if (wanted < 0 || static_cast<std::size_t>(wanted) > room)
    return refuse_usage(io, fmt::format("scale {}: this cluster can have 0 to {} nodes ({})",
                                        wanted, room, (*record)->plan.what));
  const auto order = files.want(wanted);
  if (!order) return refuse(io, order.error());
  const auto followed = follow_order(io, files, wanted, *order, call.json);
  if (call.json)
    io.out << json_of(followed.record, wanted).to_json() << std::endl;
  else if (followed.status == done)
    io.out << (wanted == 0 ? std::string("all nodes have ended")
                           : fmt::format("{} node{} up at {}", wanted, wanted == 1 ? "" : "s",
                                         followed.record.http_address))
           << std::endl;
  return followed.status;
}

}  // namespace

void add_scale(CLI::App& app, invocation& call) {
  CLI::App* command = add_command(
      app, "scale", "Grow or shrink a cluster that `tandem launch` started",
      "tandem scale 3\n\nThe head counts as one; 0 ends all. A node that goes hands its "
      "requests over first. When the\nlauncher was killed, a new one in the background "
      "takes its nodes over.");
  add_json_option(*command, call);
  auto wanted = std::make_shared<int>(0);
  command->add_option("N", *wanted, "So many nodes, the head included")->required();
  command->callback([wanted, &call] { call.status = run_scale(call, *wanted); });
}

}  // namespace tandem::gateway::command
