// `tandem join`, and the worker processes that it and `tandem up` start.
#include "gateway/command/commands.hpp"
#include "gateway/command/settings_options.hpp"

#include <memory>
#include <string>
#include <utility>

namespace tandem::gateway::command {
namespace {

struct join_call {
  std::string heads;
  std::string name;
};

int run_join(const console& io, const settings_options& options, const join_call& wanted) {
  loaded_settings loaded = load(io, options);
  if (loaded.status != done) return loaded.status;
  ensure(static_cast<bool>(io.run_join), "a console that can join");
  return io.run_join({std::move(loaded.configuration), wanted.heads, wanted.name});
}

}  // namespace

void add_join(CLI::App& app, invocation& call) {
  CLI::App* command = add_command(
      app, "join", "Lend this machine's devices to a running cluster",
      "tandem join 10.0.0.1:7000 --secret-file ~/.tandem/secret\n\nADDRESS is what `tandem up` "
      "printed after `cluster` there; both run the same build. A\nmodel that does not lie here "
      "is fetched from the head. SIGTERM gives the devices back first.\n\nWhere several heads "
      "share a store "
      "(PostgreSQL), name all of them: A:7000,B:7000. The node\njoins the one that leads, and "
      "follows when another does; that one may also be a head it was\nnot told of, if it stood "
      "by when the last one was lost.");
  auto options = add_settings_options(*command);
  auto wanted = std::make_shared<join_call>();
  command
      ->add_option("ADDRESS", wanted->heads, "The head's cluster address, or several with commas")
      ->type_name("HOST:PORT[,HOST:PORT]")
      ->required();
  command->add_option("--name", wanted->name, "Of this node; else the host's name");
  add_override(*command, options, "--devices", "devices.list",
               "auto, or names with commas: cpu:0-0,cpu:1-1");
  add_override(*command, options, "--tensor-parallel", "model.tensor_parallel",
               "So many of them, in order, hold the model together");
  add_override(*command, options, "--host", "server.host",
               "Of this node's HTTP address, where the head has server.gateways=all");
  add_override(*command, options, "--port", "server.port", "Likewise; 0: any free one");
  add_override(*command, options, "--secret-file", "cluster.secret_file",
               "The file with the cluster's secret; -: read from the input");
  command->callback(
      [options, wanted, &call] { call.status = run_join(call.io, *options, *wanted); });
}

void add_worker(CLI::App& app, invocation& call) {
  CLI::App* command =
      add_command(app, "worker", "The process of one device", "started by `tandem up` alone");
  command->group("");  // not shown
  command->allow_extras();
  command->callback([&call] {
    ensure(static_cast<bool>(call.io.run_worker), "a console that can be a worker");
    call.status = call.io.run_worker();
  });
}

}  // namespace tandem::gateway::command
