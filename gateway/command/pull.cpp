// `tandem pull`: a model from the hub onto this disk.
#include "gateway/command/commands.hpp"
#include "gateway/command/interrupt.hpp"
#include "gateway/command/progress_line.hpp"
#include "runtime/model/hub.hpp"

#include <ostream>

namespace tandem::gateway::command {
namespace {

struct pull_call {
  std::string what;
  std::string revision = "main";
};

int run_pull(const invocation& call, const pull_call& wanted) {
  const console& io = call.io;
  const interrupt_watch ctrl_c;
  model::hub_options options;
  options.models = io.home / "models";
  options.revision = wanted.revision;
  if (const auto endpoint = environment_value(io, "HF_ENDPOINT"); !endpoint.empty()) {
    options.endpoint = endpoint;
  }
  options.token = environment_value(io, "HF_TOKEN");
  options.cancelled = [&ctrl_c] { return ctrl_c.seen(); };
  result<std::filesystem::path> path = error{};
  {
    progress_line line(io.err, io.err_is_terminal);
    options.progress = [&line](const model::hub_progress& now) {
      line.show(now.file, now.bytes_done, now.bytes_total);
    };
    path = model::pull(wanted.what, options);
  }
  if (!path) return refuse(io, path.error());
  if (call.json) {
    io.out << text::value(text::value::object{{"path", path->string()}}).to_json() << std::endl;
  } else {
    io.out << path->string() << std::endl;
  }
  return done;
}

}  // namespace

void add_pull(CLI::App& app, invocation& call) {
  CLI::App* command = add_command(
      app, "pull", "Get a model from the hub; what was begun is continued",
      "tandem pull Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q8_0\n\nREPO alone: its safetensors, else its "
      "GGUF (Q4_K_M first). REPO:FILE: that file, or the GGUF\nof that precision. $HF_ENDPOINT is "
      "another hub, $HF_TOKEN opens gated repositories.");
  add_json_option(*command, call);
  auto wanted = std::make_shared<pull_call>();
  command->add_option("REPO[:FILE]", wanted->what, "OWNER/NAME, and a file of it")->required();
  command->add_option("--revision", wanted->revision, "A branch, tag or commit")
      ->capture_default_str();
  command->callback([wanted, &call] { call.status = run_pull(call, *wanted); });
}

}  // namespace tandem::gateway::command
