// `tandem launch`: a cluster of nodes, each a process, started and watched from here.
#include "gateway/command/commands.hpp"
#include "gateway/command/launch/files.hpp"
#include "gateway/command/launch/find_places.hpp"
#include "gateway/command/launch/follow_order.hpp"
#include "gateway/command/launch/kubernetes_manifest.hpp"
#include "gateway/command/launch/launcher.hpp"
#include "gateway/command/launch/plan.hpp"
#include "gateway/command/launch/run_tool.hpp"
#include "gateway/command/launch/slurm_plan.hpp"
#include "gateway/command/model_path.hpp"
#include "gateway/command/settings_options.hpp"
#include "runtime/device_spec.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace tandem::gateway::command {
namespace {

struct launch_call {
  int local = 0;
  std::string hosts;  // a file
  std::string ssh = "ssh";
  bool slurm = false;
  std::vector<std::string> sbatch;
  bool kubernetes = false;
  kubernetes_wish pods;
  int nodes = 0;
  int cores = 0;
  bool detach = false;
  bool resume = false;
};

launch_settings given_to_all(const settings_options& options, settings configuration) {
  launch_settings given{std::move(configuration), {}};
  if (!options.file.empty())
    given.of_head = {"--config", std::filesystem::absolute(options.file).string()};
  for (const auto& [key, text] : options.overrides) {
    given.of_head.push_back("--set");
    given.of_head.push_back(key + "=" + text);
  }
  for (const auto& assignment : options.assignments) {
    given.of_head.push_back("--set");
    given.of_head.push_back(assignment);
  }
  return given;
}

int run_resume(const console& io) {
  launch_files files(std::filesystem::absolute(io.home));
  if (const auto locked = files.lock(); !locked) return refuse(io, locked.error());
  auto record = files.read();
  if (!record) return refuse(io, record.error());
  if (!*record) return refuse(io, {errc::not_found, "no cluster was launched from here", {}});
  // What was written relative to a folder still means the same.
  std::error_code failed;
  std::filesystem::current_path((*record)->plan.directory, failed);
  return run_launcher(io, files, **std::move(record));
}

// A node that outlived an earlier cluster on its host gives its name back before it starts again.
void take_over_hosts(launch_record& record, const launch_record& before) {
  for (std::size_t n = 0; n < record.nodes.size(); ++n)
    for (std::size_t old = 0; old < before.nodes.size(); ++old) {
      const auto& recipe = before.plan.nodes[old];
      if (recipe.name == record.plan.nodes[n].name && recipe.where == record.plan.nodes[n].where)
        record.nodes[n].elsewhere = before.nodes[old].elsewhere;
    }
}

int begin(const console& io, launch_files& files, const launch_plan& plan, int count, bool detach) {
  launch_record record;
  record.plan = plan;
  std::error_code failed;
  record.plan.directory = std::filesystem::current_path(failed).string();
  record.nodes.resize(plan.nodes.size());
  if (const auto before = files.read(); before && *before) take_over_hosts(record, **before);
  const auto order = files.want(count);
  if (!order) return refuse(io, order.error());
  if (const auto kept = files.write(record); !kept) return refuse(io, kept.error());
  io.out << fmt::format("{} node{} on {}; their logs are in {}", count, count == 1 ? "" : "s",
                        plan.what, files.folder().string())
         << std::endl;
  if (!detach) return run_launcher(io, files, std::move(record));
  files.unlock();
  const auto followed = follow_order(io, files, count, *order, false);
  if (!followed.record.http_address.empty())
    io.out << fmt::format(
                  "ready {} in the background: `tandem scale N` changes it, `tandem scale "
                  "0` ends it",
                  followed.record.http_address)
           << std::endl;
  return followed.status;
}

int submit(const console& io, const launch_call& wanted, const launch_settings& given) {
  const launch_files files(io.home);
  slurm_request job;
  job.nodes = wanted.nodes;
  job.options = wanted.sbatch;
  job.command = {this_program().string(), "launch", "--slurm", "--nodes",
                 fmt::format("{}", wanted.nodes)};
  job.command.insert(job.command.end(), given.of_head.begin(), given.of_head.end());
  job.command.push_back("--set");
  job.command.push_back("model.path=" + given.configuration.model.path);
  job.home = std::filesystem::absolute(io.home).string();
  job.output = (std::filesystem::absolute(files.folder()) / "slurm-%j.log").string();
  job.drain_timeout_ms = given.configuration.server.drain_timeout_ms;
  const auto script = files.folder() / "job.sh";
  std::ofstream(script) << slurm_script(job);
  const auto said = run_tool({"sbatch", "--parsable", script.string()}, files.log_of("sbatch"),
                             slurm_answers_within);
  if (!said) return refuse(io, said.error());
  const std::string number = said->empty() ? "" : said->back().substr(0, said->back().find(';'));
  io.out << fmt::format(
                "job {} is submitted: {} say where it is ready\n"
                "`tandem scale N` changes it, `tandem scale 0` ends it",
                number, (files.folder() / fmt::format("slurm-{}.log", number)).string())
         << std::endl;
  return done;
}

int print_manifest(const console& io, const settings_options& options, launch_call wanted,
                   const settings& configuration) {
  auto& pods = wanted.pods;
  pods.model = configuration.model.path;
  if (wanted.nodes > 0) pods.nodes = wanted.nodes;
  if (wanted.cores > 0) pods.cores = wanted.cores;
  if (!options.file.empty())
    return refuse_usage(io, "--kubernetes: pods do not have the file of --config: give --set");
  // What the manifest says by itself is not said twice.
  constexpr std::string_view own[] = {"model.path", "server.host", "server.port", "cluster.listen"};
  for (const auto& [key, text] : options.overrides)
    if (std::ranges::find(own, key) == std::end(own)) pods.assignments.push_back(key + "=" + text);
  pods.assignments.insert(pods.assignments.end(), options.assignments.begin(),
                          options.assignments.end());
  const auto manifest = kubernetes_manifest(pods, configuration);
  if (!manifest) return refuse_usage(io, manifest.error().detail);
  io.out << *manifest << std::flush;
  return done;
}

int run_plan(const console& io, launch_files& files, const result<launch_plan>& plan,
             const launch_call& wanted) {
  if (!plan) return refuse(io, plan.error());
  const int room = static_cast<int>(plan->nodes.size());
  if (wanted.nodes > room)
    return refuse_usage(
        io, fmt::format("--nodes {}: there can be {} ({})", wanted.nodes, room, plan->what));
  const int count = wanted.nodes > 0 ? wanted.nodes : wanted.local > 0 ? wanted.local : room;
  if (const auto made = make_secret(plan->secret_file); !made) return refuse(io, made.error());
  return begin(io, files, *plan, count, wanted.detach);
}

// Nothing of an earlier cluster runs.
result<void> is_free(const launch_files& files) {
  const auto before = files.read();
  if (!before || !*before) return {};
  const auto running = files.running(**before);
  if (running.empty()) return {};
  return error{errc::conflict,
               fmt::format("{} nodes of a cluster whose launcher is gone still run: `tandem scale "
                           "N` takes them over, `tandem scale 0` ends them",
                           running.size()),
               {}};
}

int run_launch(const console& io, const settings_options& options, const launch_call& wanted) {
  if (wanted.resume) return run_resume(io);
  const int ways = (wanted.local != 0 ? 1 : 0) + (wanted.hosts.empty() ? 0 : 1) +
                   (wanted.slurm ? 1 : 0) + (wanted.kubernetes ? 1 : 0);
  if (ways != 1)
    return refuse_usage(
        io, "launch: say where, once: --local N, --hosts FILE, --slurm or --kubernetes");
  loaded_settings loaded = load(io, options);
  if (loaded.status != done) return loaded.status;
  auto& configuration = loaded.configuration;
  if (wanted.kubernetes) return print_manifest(io, options, wanted, configuration);
  const auto model = find_model(configuration.model.path, io.home / "models");
  if (!model) return refuse(io, model.error());
  configuration.model.path = std::filesystem::absolute(*model).string();
  if (configuration.cluster.secret_file.empty())
    configuration.cluster.secret_file = (io.home / "secret").string();
  configuration.cluster.secret_file =
      std::filesystem::absolute(configuration.cluster.secret_file).string();
  const auto given = given_to_all(options, configuration);

  launch_files files(io.home);
  if (const auto locked = files.lock(); !locked) return refuse(io, locked.error());
  if (const auto free = is_free(files); !free) return refuse(io, free.error());
  if (wanted.local != 0)
    return run_plan(io, files, local_plan(wanted.local, wanted.cores, given, this_machine().cores),
                    wanted);
  if (!wanted.hosts.empty())
    return run_plan(io, files, plan_of_hosts(wanted.hosts, wanted.ssh, given), wanted);
  if (!environment_value(io, "SLURM_JOB_ID").empty())
    return run_plan(io, files, plan_of_allocation(io, given), wanted);
  if (wanted.nodes < 1) return refuse_usage(io, "launch --slurm: say how many hosts: --nodes N");
  return submit(io, wanted, given);
}

}  // namespace

void add_launch(CLI::App& app, invocation& call) {
  CLI::App* command = add_command(
      app, "launch", "Start a cluster of nodes and watch over it",
      "tandem launch --local 2 SmolLM2-135M-Instruct.Q4_1 --port 8000\n"
      "  tandem launch --hosts hosts.txt     with a line for each: HOST [CORES] [KEY=VALUE]…\n"
      "  tandem launch --slurm --nodes 4 --sbatch=--partition=long\n"
      "  tandem launch --kubernetes --nodes 3 OWNER/NAME | kubectl apply -f -\n\n"
      "The head answers at --port; the other nodes lend it their devices. Ctrl-C ends all: the "
      "head\nfinishes what runs, then the others go. `tandem scale N` grows and shrinks it "
      "meanwhile.");
  auto wanted = std::make_shared<launch_call>();
  auto options = add_settings_options(*command);
  add_override(*command, options, "MODEL,--model", "model.path",
               "A .gguf file, a folder, or a name under $TANDEM_HOME/models");
  command->add_option("--local", wanted->local, "So many nodes on this machine, the head included")
      ->type_name("N");
  command
      ->add_option("--hosts", wanted->hosts,
                   "A node on each host of this file, by ssh, and the head here")
      ->type_name("FILE");
  command->add_flag("--slurm", wanted->slurm,
                    "In this allocation of Slurm, else in one that sbatch is asked for");
  command->add_flag("--kubernetes", wanted->kubernetes, "Print what `kubectl apply -f -` takes");
  command->add_option("--nodes", wanted->nodes, "So many nodes at first; else all there are")
      ->type_name("N");
  command
      ->add_option("--cores", wanted->cores,
                   "Of each node (--local, else the machine's divided by N; --kubernetes)")
      ->type_name("N");
  command->add_option("--ssh", wanted->ssh, "The ssh to use: \"ssh -p 2222 -i KEY\"")
      ->type_name("COMMAND");
  command->add_option("--sbatch", wanted->sbatch, "An option for sbatch: --sbatch=--time=8:00:00")
      ->type_name("OPTION")
      ->allow_extra_args(false);
  command->add_option("--image", wanted->pods.image, "Of the pods, with `tandem` in its PATH");
  command->add_option("--memory", wanted->pods.memory, "Of each pod")->capture_default_str();
  command->add_option("--storage", wanted->pods.storage, "Of each pod's $TANDEM_HOME")
      ->capture_default_str();
  add_override(*command, options, "--listen", "cluster.listen",
               "Where the head is joined: an address of this machine that the hosts reach");
  add_override(*command, options, "--name", "model.name", "What clients call the model");
  add_override(*command, options, "--host", "server.host", "Address to listen on");
  add_override(*command, options, "--port", "server.port", "Port to listen on; 0: any free one");
  add_override(*command, options, "--devices", "devices.list",
               "Dealt out to the nodes in order: cpu:0-0,cpu:1-1");
  command->add_flag("--detach", wanted->detach, "Go on in the background once it is ready");
  command->add_flag("--resume", wanted->resume)->group("");  // of a launcher in the background
  command->callback(
      [options, wanted, &call] { call.status = run_launch(call.io, *options, *wanted); });
}

}  // namespace tandem::gateway::command
