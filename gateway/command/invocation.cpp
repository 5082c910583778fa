#include "gateway/command/invocation.hpp"

namespace tandem::gateway::command {

CLI::App* add_command(CLI::App& app, std::string name, std::string description,
                      std::string example) {
  CLI::App* command = app.add_subcommand(std::move(name), std::move(description));
  command->footer("Example:\n  " + std::move(example));
  return command;
}

void add_command_not_built(CLI::App& app, invocation& call, const std::string& name,
                           std::string description) {
  const std::string path = app.get_parent() ? app.get_name() + " " + name : name;
  CLI::App* command =
      add_command(app, name, std::move(description),
                  "tandem " + path + "\n\nNot built yet: this version answers with exit status 1.");
  command->group("Not built yet");
  command->allow_extras();
  command->callback([&call, path] {
    call.status = refuse(call.io, {errc::unsupported,
                                   "`tandem " + path +
                                       "` is not built yet in this version; `tandem --help` lists "
                                       "what is",
                                   {}});
  });
}

void add_server_options(CLI::App& app, invocation& call) {
  const auto given_or = [&](std::string_view name, std::string_view otherwise) {
    const std::string_view given = environment_value(call.io, name);
    return std::string(given.empty() ? otherwise : given);
  };
  call.address = given_or("TANDEM_ADDRESS", default_address);
  call.api_key = given_or("TANDEM_API_KEY", "");
  app.add_option("--address", call.address,
                 "Where the platform answers ($TANDEM_ADDRESS, else http://127.0.0.1:8000)")
      ->type_name("URL");
  app.add_option("--api-key", call.api_key, "Key to send ($TANDEM_API_KEY)")->type_name("KEY");
}

void add_json_option(CLI::App& app, invocation& call) {
  app.add_flag("--json", call.json, "Print JSON instead of text");
}

result<http_client> connect(const invocation& call) {
  return http_client::create(call.address, call.api_key);
}

}  // namespace tandem::gateway::command
