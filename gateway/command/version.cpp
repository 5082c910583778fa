// `tandem version`.
#include "gateway/command/commands.hpp"
#include "gateway/command/linked_versions.hpp"
#include "gateway/command/print.hpp"

#include <ostream>

namespace tandem::gateway::command {
namespace {

int run_version(const invocation& call) {
  using text::value;
  const build_facts build = this_build();
  const auto libraries = linked_versions();
  if (call.json) {
    value::object linked;
    for (const auto& [name, version] : libraries) linked.emplace_back(name, version);
    call.io.out << value(value::object{{"version", build.version},
                                       {"commit", build.commit},
                                       {"compiler", build.compiler},
                                       {"build_type", build.build_type},
                                       {"libraries", linked}})
                       .to_json()
                << std::endl;
    return done;
  }
  std::vector<std::vector<std::string>> rows = {{"tandem", build.version},
                                                {"commit", build.commit},
                                                {"compiler", build.compiler},
                                                {"build", build.build_type}};
  for (const auto& [name, version] : libraries) rows.push_back({name, version});
  print_table(call.io.out, rows);
  call.io.out << std::flush;
  return done;
}

}  // namespace

void add_version(CLI::App& app, invocation& call) {
  CLI::App* command =
      add_command(app, "version", "Versions of this binary and of everything linked in",
                  "tandem version --json");
  add_json_option(*command, call);
  command->callback([&call] { call.status = run_version(call); });
}

}  // namespace tandem::gateway::command
