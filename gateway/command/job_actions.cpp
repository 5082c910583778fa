// `tandem cancel`, `pause` and `resume`: what changes a job takes its whole id, so that no
// abbreviation ever stops the wrong one.
#include "gateway/command/commands.hpp"
#include "gateway/command/jobs.hpp"

#include <fmt/format.h>

#include <ostream>

namespace tandem::gateway::command {
namespace {

int run_action(const invocation& call, const std::string& id, const char* action) {
  const console& io = call.io;
  auto client = connect(call);
  if (!client) return refuse_usage(io, client.error().detail);
  const auto known = find_job(*client, id);
  if (!known) {
    if (known.error().code != errc::not_found) return refuse(io, known.error());
    const auto meant = find_job_by_prefix(*client, id);
    return refuse(io, meant ? error{errc::not_found,
                                    fmt::format("no job {}: to {} {}, give its whole id", id,
                                                action, meant->id),
                                    {}}
                            : known.error());
  }
  const auto changed = client->post_json(job_target(id, std::string("/") + action), "{}");
  if (!changed) return refuse(io, changed.error());
  if (call.json) {
    io.out << changed->to_json() << std::endl;
  } else {
    const job_view job = job_from(*changed);
    io.out << fmt::format("{}: {}", id, job.status) << std::endl;
  }
  return done;
}

void add_action(CLI::App& app, invocation& call, const char* action, const char* description,
                const char* more) {
  CLI::App* command =
      add_command(app, action, description,
                  fmt::format("tandem {} ftjob-3f2a9c0d1e4b5a697f8c2d3e\n\n{}", action, more));
  add_server_options(*command, call);
  add_json_option(*command, call);
  auto id = std::make_shared<std::string>();
  command->add_option("ID", *id, "The job's whole id")->required();
  command->callback([id, action, &call] { call.status = run_action(call, *id, action); });
}

}  // namespace

void add_cancel(CLI::App& app, invocation& call) {
  add_action(app, call, "cancel", "End a job; its last checkpoint stays",
             "A cancelled job cannot be taken up again; `tandem pause` leaves that open.");
}

void add_pause(CLI::App& app, invocation& call) {
  add_action(app, call, "pause", "Halt a job and free its devices",
             "`tandem resume` goes on where it was: the result is the same to the bit.");
}

void add_resume(CLI::App& app, invocation& call) {
  add_action(app, call, "resume", "Let a paused job go on",
             "It goes on at the step where it was paused.");
}

}  // namespace tandem::gateway::command
