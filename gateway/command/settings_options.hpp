// The options that set settings, shared by `up`, `devices` and `config show`.
#pragma once

#include "gateway/command/invocation.hpp"
#include "runtime/settings.hpp"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tandem::gateway::command {

struct settings_options {
  std::string file;
  std::vector<std::pair<std::string, std::string>> overrides;  // as load_settings takes them
  std::vector<std::string> assignments;                        // of --set, "section.key=value"
};

// --config and --set.
std::shared_ptr<settings_options> add_settings_options(CLI::App& app);
// An option that is a setting's own: --port for server.port.
void add_override(CLI::App& app, const std::shared_ptr<settings_options>& options,
                  const std::string& option, std::string key, const std::string& description);

// Loads file, environment and command line. A refusal is already printed: `status` says how the
// command ends.
struct loaded_settings {
  int status = done;
  settings configuration;
};
loaded_settings load(const console& io, const settings_options& options);

}  // namespace tandem::gateway::command
