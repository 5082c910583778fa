#include "gateway/command/settings_options.hpp"

namespace tandem::gateway::command {

std::shared_ptr<settings_options> add_settings_options(CLI::App& app) {
  auto options = std::make_shared<settings_options>();
  app.add_option("--config", options->file, "A settings file (TOML)")->type_name("FILE");
  app.add_option("--set", options->assignments, "Any setting: --set serve.max_queued=64")
      ->type_name("SECTION.KEY=VALUE")
      ->allow_extra_args(false);
  return options;
}

void add_override(CLI::App& app, const std::shared_ptr<settings_options>& options,
                  const std::string& option, std::string key, const std::string& description) {
  const auto take = [options, key = std::move(key)](const std::string& value) {
    options->overrides.emplace_back(key, value);
  };
  app.add_option_function<std::string>(option, take, description);
}

loaded_settings load(const console& io, const settings_options& options) {
  auto overrides = options.overrides;
  for (const std::string& assignment : options.assignments) {
    const std::size_t equals = assignment.find('=');
    if (equals == std::string::npos) {
      return {refuse_usage(io, "--set " + assignment + ": write SECTION.KEY=VALUE"), {}};
    }
    overrides.emplace_back(assignment.substr(0, equals), assignment.substr(equals + 1));
  }
  // What the command line alone has wrong is wrong usage; the rest is the world's.
  for (const auto& one : overrides) {
    const auto alone = load_settings({}, {}, {one});
    const bool needs_another = one.first.starts_with("server.tls_");
    if (!alone && !needs_another) return {refuse_usage(io, alone.error().detail), {}};
  }
  auto loaded = load_settings(options.file, io.environment, overrides);
  if (!loaded) return {refuse(io, loaded.error()), {}};
  return {done, std::move(*loaded)};
}

}  // namespace tandem::gateway::command
