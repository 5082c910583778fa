#include "gateway/command/launch/find_places.hpp"

#include "gateway/command/launch/run_tool.hpp"
#include "gateway/command/launch/slurm_plan.hpp"
#include "gateway/command/launch/ssh_plan.hpp"
#include "runtime/transport/address.hpp"
#include "runtime/transport/local_host.hpp"

#include <fmt/format.h>

#include <sstream>
#include <system_error>
#include <utility>
#include <vector>

namespace tandem::gateway::command {
namespace {

// This machine's address as the first host that is elsewhere sees it.
result<std::string> address_for(const std::vector<host_line>& hosts) {
  std::string found;
  for (const auto& line : hosts) {
    const auto host = line.host.substr(line.host.find('@') + 1);  // npos + 1: all of it
    const auto here = transport::local_host_towards(host + ":22");
    if (!here)
      return error{errc::unavailable,
                   fmt::format("{}; if ssh alone knows that host, say where the head is reached: "
                               "--listen HOST:PORT",
                               here.error().detail),
                   {}};
    found = *here + ":0";
    if (const auto where = transport::address::parse(found); where && !where->is_loopback()) break;
  }
  return found;
}

words_list words_in(const std::string& text) {
  std::istringstream in(text);
  words_list words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

}  // namespace

std::filesystem::path this_program() {
  std::error_code failed;
  return std::filesystem::read_symlink("/proc/self/exe", failed);
}

result<launch_plan> plan_of_hosts(const std::string& file, const std::string& ssh,
                                  const launch_settings& given) {
  const auto hosts = read_hosts(file);
  if (!hosts) return hosts.error();
  ssh_options how{words_in(ssh), this_program().string(), given.configuration.cluster.listen};
  if (how.ssh.empty()) return error{errc::bad_request, "--ssh: is empty", {}};
  if (how.listen.empty()) {
    auto listen = address_for(*hosts);
    if (!listen) return listen.error();
    how.listen = *std::move(listen);
  }
  return ssh_plan(*hosts, how, given, file);
}

result<launch_plan> plan_of_allocation(const console& io, const launch_settings& given) {
  const auto log = io.home / "launch" / "scontrol.log";
  slurm_allocation where;
  where.job = environment_value(io, "SLURM_JOB_ID");
  auto hosts = run_tool(
      {"scontrol", "show", "hostnames", std::string(environment_value(io, "SLURM_JOB_NODELIST"))},
      log, slurm_answers_within);
  if (!hosts) return hosts.error();
  where.hosts = *std::move(hosts);
  if (where.hosts.empty()) return error{errc::unavailable, "this job of Slurm has no hosts", {}};
  where.listen = given.configuration.cluster.listen;
  if (where.listen.empty()) {
    const auto about = run_tool({"scontrol", "--oneliner", "show", "node", where.hosts.front()},
                                log, slurm_answers_within);
    if (!about) return about.error();
    where.listen = slurm_address_of(about->empty() ? "" : about->front());
    if (where.listen.empty())
      return error{
          errc::unavailable,
          fmt::format("Slurm tells no address of {}: give --listen HOST:PORT", where.hosts.front()),
          {}};
    where.listen += ":0";
  }
  return slurm_plan(where, this_program().string(), given);
}

}  // namespace tandem::gateway::command
