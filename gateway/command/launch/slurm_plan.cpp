#include "gateway/command/launch/slurm_plan.hpp"

#include "gateway/command/launch/ssh_plan.hpp"

#include <fmt/format.h>

namespace tandem::gateway::command {
namespace {

// srun kills its task when it is ended itself; a step is asked to end by its number, which its task
// says first.
void put_under_srun(node_recipe& node, const slurm_allocation& where, const std::string& host,
                    const std::string& program) {
  std::string script = "echo process $SLURM_STEP_ID; exec " + in_quotes(program);
  for (std::size_t n = 1; n < node.start.size(); ++n) script += " " + in_quotes(node.start[n]);
  node.where = host;
  node.start = {"srun",
                "--jobid=" + where.job,
                "--overlap",
                "--nodes=1",
                "--ntasks=1",
                "--nodelist=" + host,
                "--job-name=" + node.name,
                "sh",
                "-c",
                std::move(script)};
  const std::string step = where.job + ".{process}";
  node.stop = {"scancel", "--signal=TERM", step};
  node.kill = {"scancel", "--signal=KILL", step};
}

}  // namespace

launch_plan slurm_plan(const slurm_allocation& where, const std::string& program,
                       const launch_settings& given) {
  const auto& configuration = given.configuration;
  launch_plan plan;
  plan.what = fmt::format("{} host{} of Slurm's job {}", where.hosts.size(),
                          where.hosts.size() == 1 ? "" : "s", where.job);
  plan.has_spares = true;
  plan.listen = where.listen;
  plan.port = configuration.server.port;
  plan.memory_fraction = configuration.devices.memory_fraction;
  plan.secret_file = configuration.cluster.secret_file;
  plan.drain_timeout_ms = configuration.server.drain_timeout_ms;
  for (const auto& host : where.hosts) {
    node_recipe node;
    if (plan.nodes.empty()) {
      node = head_recipe(given, configuration.devices.list);
    } else {
      node.name = fmt::format("node{}", plan.nodes.size() + 1);
      node.start = {"tandem", "join", "{cluster}", "--name", node.name, "--secret-file", "-"};
      node.takes_secret = true;
      if (configuration.devices.list != words_list{"auto"}) {
        node.start.push_back("--devices");
        node.start.push_back(fmt::format("{}", fmt::join(configuration.devices.list, ",")));
      }
      for (const auto& word : settings_of_nodes(configuration)) node.start.push_back(word);
    }
    put_under_srun(node, where, host, program);
    plan.nodes.push_back(std::move(node));
  }
  return plan;
}

std::string slurm_address_of(std::string_view about_node) {
  constexpr std::string_view key = " NodeAddr=";
  const auto at = about_node.find(key);
  if (at == std::string_view::npos) return {};
  about_node.remove_prefix(at + key.size());
  return std::string(about_node.substr(0, about_node.find(' ')));
}

std::string slurm_script(const slurm_request& wanted) {
  // The launcher hears of the job's end in time for all to drain.
  const int notice_s = 2 * wanted.drain_timeout_ms / 1000 + 30;
  std::string script = fmt::format(
      "#!/bin/bash\n"
      "# Made by `tandem launch --slurm`.\n"
      "#SBATCH --job-name=tandem\n"
      "#SBATCH --nodes={}\n"
      "#SBATCH --ntasks-per-node=1\n"
      "#SBATCH --signal=B:TERM@{}\n"
      "#SBATCH --output={}\n",
      wanted.nodes, notice_s, wanted.output);
  for (const auto& option : wanted.options) script += fmt::format("#SBATCH {}\n", option);
  script += fmt::format("export TANDEM_HOME={}\nexec", in_quotes(wanted.home));
  for (const auto& word : wanted.command) script += " " + in_quotes(word);
  return script + "\n";
}

}  // namespace tandem::gateway::command
