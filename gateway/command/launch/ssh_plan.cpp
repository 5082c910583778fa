#include "gateway/command/launch/ssh_plan.hpp"

#include <fmt/format.h>

#include <utility>

namespace tandem::gateway::command {
namespace {

// What the shell of the host is given: one word, whichever shell it is. It says its process, which
// is what is ended later: ssh passes no signals on.
std::string remote_command(const host_line& host, const ssh_options& how, const words_list& join) {
  // One before it may have outlived its connection: its name is free once it has left.
  std::string script = fmt::format(
      "b={{before}}; n=0; if [ -n \"$b\" ] && tr '\\0' '\\n' </proc/$b/cmdline 2>/dev/null | grep "
      "-qxF {}; then kill $b; while [ $n -lt 60 ] && kill -0 $b 2>/dev/null; do n=$((n+1)); sleep "
      "1; "
      "done; fi; echo process $$; ",
      in_quotes(host.name));
  if (host.tandem.empty())
    script += fmt::format(
        "t={}; [ -x \"$t\" ] || t=$(command -v tandem) || {{ echo \"tandem: no tandem on this "
        "host, "
        "neither $t nor in PATH: copy this build there, or give tandem=PATH\"; exit 1; }}; ",
        in_quotes(how.program));
  else
    script += fmt::format(
        "t={}; [ -x \"$t\" ] || {{ echo \"tandem: no program $t on this host\"; exit 1; }}; ",
        in_quotes(host.tandem));
  if (!host.home.empty()) script += fmt::format("export TANDEM_HOME={}; ", in_quotes(host.home));
  script += "exec \"$t\"";
  for (const auto& word : join) script += " " + in_quotes(word);
  return "exec sh -c " + in_quotes(script);
}

words_list ssh_to(const host_line& host, const ssh_options& how, const std::string& command) {
  words_list words = how.ssh;
  for (const char* option :
       {"BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3"}) {
    words.push_back("-o");
    words.push_back(option);
  }
  words.push_back("-T");
  words.push_back("--");
  words.push_back(host.host);
  words.push_back(command);
  return words;
}

node_recipe recipe_of(const host_line& host, const ssh_options& how, const launch_settings& given) {
  words_list join = {"join", "{cluster}", "--name", host.name, "--secret-file", "-"};
  const auto add = [&join](const std::string& option, const std::string& text) {
    join.push_back(option);
    join.push_back(text);
  };
  if (!host.devices.empty()) add("--devices", host.devices);
  for (const auto& word : settings_of_nodes(given.configuration)) join.push_back(word);
  if (host.cores > 0) add("--set", fmt::format("devices.threads_per_device={}", host.cores));
  for (const auto& [key, text] : host.settings) add("--set", fmt::format("{}={}", key, text));
  node_recipe node;
  node.name = host.name;
  node.where = host.host;
  node.start = ssh_to(host, how, remote_command(host, how, join));
  node.stop = ssh_to(host, how, "kill -TERM {process}");
  node.kill = ssh_to(host, how, "kill -KILL {process}");
  node.takes_secret = true;
  return node;
}

}  // namespace

std::string ssh_complaint(std::string_view line) {
  const auto has = [line](std::string_view words) {
    return line.find(words) != std::string_view::npos;
  };
  if (has("Permission denied ("))
    return fmt::format("{}: put your key there first (ssh-copy-id)", line);
  if (has("Host key verification failed") || has("REMOTE HOST IDENTIFICATION HAS CHANGED"))
    return fmt::format("{}: connect to it by hand once, and look at its key", line);
  return std::string(line.starts_with("ssh: ") || has("Connection closed by") ? line : "");
}

std::string in_quotes(std::string_view word) {
  std::string out = "'";
  for (const char c : word) {
    if (c == '\'')
      out += "'\\''";
    else
      out += c;
  }
  return out + "'";
}

launch_plan ssh_plan(const std::vector<host_line>& hosts, const ssh_options& how,
                     const launch_settings& given, const std::string& file) {
  const auto& configuration = given.configuration;
  launch_plan plan;
  plan.what = fmt::format("this machine and {} host{} of {}", hosts.size(),
                          hosts.size() == 1 ? "" : "s", file);
  plan.has_spares = true;
  plan.listen = how.listen;
  plan.port = configuration.server.port;
  plan.memory_fraction = configuration.devices.memory_fraction;
  plan.secret_file = configuration.cluster.secret_file;
  plan.drain_timeout_ms = configuration.server.drain_timeout_ms;
  plan.nodes.push_back(head_recipe(given, configuration.devices.list));
  for (const auto& host : hosts) plan.nodes.push_back(recipe_of(host, how, given));
  return plan;
}

}  // namespace tandem::gateway::command
