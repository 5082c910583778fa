// `tandem up`: settings and model found, then the platform runs in the foreground.
#include "gateway/command/commands.hpp"
#include "gateway/command/model_path.hpp"
#include "gateway/command/settings_options.hpp"

namespace tandem::gateway::command {
namespace {

int run_up(const console& io, const settings_options& options, bool quiet) {
  loaded_settings loaded = load(io, options);
  if (loaded.status != done) return loaded.status;
  settings& configuration = loaded.configuration;
  const auto model = find_model(configuration.model.path, io.home / "models");
  if (!model) return refuse(io, model.error());
  configuration.model.path = model->string();
  ensure(static_cast<bool>(io.run_platform), "a console that can run the platform");
  return io.run_platform({std::move(configuration), quiet});
}

}  // namespace

void add_up(CLI::App& app, invocation& call) {
  CLI::App* command = add_command(app, "up", "Start the whole platform here, in the foreground",
                                  "tandem up --model SmolLM2-135M-Instruct.Q4_1 --port 8000");
  auto options = add_settings_options(*command);
  add_override(*command, options, "--model", "model.path",
               "A .gguf file, a folder, or a name under $TANDEM_HOME/models");
  add_override(*command, options, "--name", "model.name", "What clients call the model");
  add_override(*command, options, "--host", "server.host", "Address to listen on");
  add_override(*command, options, "--port", "server.port", "Port to listen on; 0: any free one");
  add_override(*command, options, "--devices", "devices.list",
               "auto, or names with commas: cpu:0-0,cpu:1-1");
  add_override(*command, options, "--tensor-parallel", "model.tensor_parallel",
               "So many of them, in order, hold the model together");
  auto quiet = std::make_shared<bool>(false);
  command->add_flag("--quiet", *quiet, "Print only the line that says ready");
  command->callback([options, quiet, &call] { call.status = run_up(call.io, *options, *quiet); });
}

}  // namespace tandem::gateway::command
