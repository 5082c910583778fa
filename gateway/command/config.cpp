// `tandem config check F` and `tandem config show`.
#include "gateway/command/commands.hpp"
#include "gateway/command/settings_options.hpp"

#include <ostream>

namespace tandem::gateway::command {
namespace {

int run_check(const console& io, const std::string& file) {
  const auto loaded = load_settings(file, {}, {});
  if (!loaded) return refuse(io, loaded.error());
  io.out << file << ": good" << std::endl;
  return done;
}

int run_show(const console& io, const settings_options& options, bool json) {
  const loaded_settings loaded = load(io, options);
  if (loaded.status != done) return loaded.status;
  io.out << (json ? show_settings_json(loaded.configuration) : show_settings(loaded.configuration))
         << std::flush;
  return done;
}

}  // namespace

void add_config(CLI::App& app, invocation& call) {
  CLI::App* command = add_command(app, "config", "Check a settings file; show what is in force",
                                  "tandem config check configs/serve_smollm2_cpu.toml");
  command->require_subcommand(1);

  CLI::App* check = add_command(*command, "check", "Is this settings file good?",
                                "tandem config check configs/serve_smollm2_cpu.toml");
  auto file = std::make_shared<std::string>();
  check->add_option("FILE", *file, "The settings file")->required();
  check->callback([file, &call] { call.status = run_check(call.io, *file); });

  CLI::App* show = add_command(*command, "show", "Every setting, with where its value came from",
                               "TANDEM_SERVER_PORT=9000 tandem config show --config my.toml");
  auto options = add_settings_options(*show);
  add_json_option(*show, call);
  show->callback([options, &call] { call.status = run_show(call.io, *options, call.json); });
}

}  // namespace tandem::gateway::command
