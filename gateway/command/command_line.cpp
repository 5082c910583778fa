#include "gateway/command/command_line.hpp"

#include "gateway/command/commands.hpp"
#include "runtime/nearest_name.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ostream>

namespace tandem::gateway::command {
namespace {

struct later_command {
  const char* name;
  const char* description;
};
constexpr std::array<later_command, 4> later_commands = {{
    {"launch", "Start a cluster of nodes"},
    {"scale", "Grow or shrink the cluster"},
    {"load", "Bring a model up"},
    {"unload", "Bring a model down"},
}};

void add_all(CLI::App& app, invocation& call) {
  add_up(app, call);
  add_join(app, call);
  add_nodes(app, call);
  add_drain(app, call);
  add_worker(app, call);
  add_chat(app, call);
  add_train(app, call);
  add_jobs(app, call);
  add_job(app, call);
  add_cancel(app, call);
  add_pause(app, call);
  add_resume(app, call);
  add_plot(app, call);
  add_models(app, call);
  add_pull(app, call);
  add_tokenize(app, call);
  add_render(app, call);
  add_status(app, call);
  add_top(app, call);
  add_events(app, call);
  add_leases(app, call);
  add_assign(app, call);
  add_why(app, call);
  add_policy(app, call);
  add_devices(app, call);
  add_config(app, call);
  add_bench(app, call);
  add_export(app, call);
  add_version(app, call);
  add_commands_not_built(app, call);
}

// The innermost command that was given.
const CLI::App& deepest(const CLI::App& app) {
  const auto given = app.get_subcommands();
  return given.empty() ? app : deepest(*given.back());
}

std::vector<std::string> names_of_commands(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  return names;
}

std::string did_you_mean(std::string_view word, const CLI::App& command) {
  std::vector<std::string> known = names_of_commands(command);
  if (word.starts_with("-")) {
    known.clear();
    for (const CLI::Option* option : command.get_options()) {
      for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
    }
  }
  const auto near = nearest_name(word.substr(0, word.find('=')), known);
  return near ? fmt::format(": did you mean {}?", *near) : std::string();
}

std::string path_of(const CLI::App& command) {
  const CLI::App* parent = command.get_parent();
  return parent ? path_of(*parent) + " " + command.get_name() : command.get_name();
}

// One line about what is wrong with the arguments, with the command whose --help explains it.
std::string usage_error(const CLI::App& app, const CLI::ParseError& why) {
  const CLI::App& command = deepest(app);
  const std::vector<std::string> extras = app.remaining(true);
  std::string what = why.what();
  if (!extras.empty()) {
    const bool option = extras.front().starts_with("-");
    const bool wants_command = !names_of_commands(command).empty();
    what = fmt::format("unknown {} {}{}",
                       option          ? "option"
                       : wants_command ? "command"
                                       : "argument",
                       extras.front(), did_you_mean(extras.front(), command));
  }
  return fmt::format("{}{} (`{} --help` shows what there is)", what, what.ends_with("?") ? "" : ":",
                     path_of(command));
}

}  // namespace

void add_commands_not_built(CLI::App& app, invocation& call) {
  for (const later_command& later : later_commands) {
    add_command_not_built(app, call, later.name, later.description);
  }
}

std::vector<std::string> command_names() {
  return {"up",     "join",     "nodes",  "drain",   "chat",   "train",  "jobs",
          "job",    "cancel",   "pause",  "resume",  "plot",   "export", "models",
          "pull",   "tokenize", "render", "status",  "top",    "events", "leases",
          "assign", "why",      "policy", "devices", "config", "bench",  "version"};
}

int run_command_line(const std::vector<std::string>& arguments, console& io) {
  CLI::App app("One runtime that trains and serves large language models", "tandem");
  invocation call{io, {}, {}, false, done};
  app.require_subcommand(1);
  app.footer(
      "Example:\n  tandem up --port 8000      then, elsewhere:  tandem chat\n\n"
      "`tandem COMMAND --help` shows a command's options and an example.");
  bool version_wanted = false;
  app.add_flag("--version", version_wanted, "The same as `tandem version`");
  add_all(app, call);
  try {
    if (arguments == std::vector<std::string>{"--version"})
      return run_command_line({"version"}, io);
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // as CLI11 wants them
    app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    io.out << app.help();
    return done;
  } catch (const CLI::ParseError& why) {
    if (arguments.empty()) {
      io.err << app.help();
      return wrong_usage;
    }
    return refuse_usage(io, usage_error(app, why));
  }
  return call.status;
}

}  // namespace tandem::gateway::command
