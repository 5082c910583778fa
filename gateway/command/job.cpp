// `tandem jobs` and `tandem job`: reading them. The beginning of an id is enough here.
#include "gateway/command/commands.hpp"
#include "gateway/command/follow_job.hpp"
#include "gateway/command/job_table.hpp"

#include <fmt/format.h>
#include <CLI/Validators.hpp>

#include <ostream>

namespace tandem::gateway::command {
namespace {

using text::value;

struct job_call {
  std::string id;
  bool events = false;
  bool follow = false;
};

int run_jobs(const invocation& call, std::size_t limit) {
  auto client = connect(call);
  if (!client) return refuse_usage(call.io, client.error().detail);
  const auto jobs = list_jobs(*client, limit);
  if (!jobs) return refuse(call.io, jobs.error());
  if (call.json) {
    value::array all;
    for (const job_view& job : *jobs) all.push_back(job.whole);
    call.io.out << value(std::move(all)).to_json() << std::endl;
  } else if (jobs->empty()) {
    call.io.out << "no jobs yet: start one with `tandem train DATA.jsonl`" << std::endl;
  } else {
    print_jobs(call.io.out, *jobs);
    call.io.out << std::flush;
  }
  return done;
}

void print_event(std::ostream& out, const job_event& event) {
  out << utc_time(event.created_at) << "  " << event.level << "  ";
  for (const char c : event.message) out << (static_cast<unsigned char>(c) < 0x20 ? ' ' : c);
  out << '\n';
}

int show_events(const invocation& call, http_client& client, const std::string& id) {
  const auto events = all_events(client, id);
  if (!events) return refuse(call.io, events.error());
  for (const job_event& event : *events) {
    if (call.json) {
      call.io.out << event.whole.to_json() << '\n';
    } else {
      print_event(call.io.out, event);
    }
  }
  call.io.out << std::flush;
  return done;
}

int run_job(const invocation& call, const job_call& wanted) {
  auto client = connect(call);
  if (!client) return refuse_usage(call.io, client.error().detail);
  const auto job = find_job_by_prefix(*client, wanted.id);
  if (!job) return refuse(call.io, job.error());
  job_view shown = *job;
  int status = done;
  if (wanted.events) status = show_events(call, *client, job->id);
  if (wanted.follow) {
    status = follow_on_screen(call, *client, job->id, call.json, shown);
    if (!shown.ended()) return status;  // Ctrl-C, or no server: said already
  } else if (wanted.events) {
    return status;
  }
  if (call.json) {
    call.io.out << shown.whole.to_json() << std::endl;
  } else {
    print_job(call.io.out, shown);
    call.io.out << std::flush;
  }
  return status;
}

}  // namespace

void add_jobs(CLI::App& app, invocation& call) {
  CLI::App* command =
      add_command(app, "jobs", "List the fine-tuning jobs, newest first", "tandem jobs --limit 5");
  add_server_options(*command, call);
  add_json_option(*command, call);
  auto limit = std::make_shared<std::size_t>(20);
  command->add_option("--limit", *limit, "At most so many")
      ->check(CLI::Range(std::size_t{1}, std::size_t{10'000}))
      ->capture_default_str();
  command->callback([limit, &call] { call.status = run_jobs(call, *limit); });
}

void add_job(CLI::App& app, invocation& call) {
  CLI::App* command = add_command(
      app, "job", "Show a job, its events, or follow it",
      "tandem job ftjob-3f2a --follow\n\nThe beginning of an id is enough while it is the only "
      "one. "
      "--follow goes on until the job ends,\nwith exit status 1 when it fails; with --json each "
      "event is a line, and the job the last.");
  add_server_options(*command, call);
  add_json_option(*command, call);
  auto wanted = std::make_shared<job_call>();
  command->add_option("ID", wanted->id, "The job, or the beginning of its id")->required();
  CLI::Option* events = command->add_flag("--events", wanted->events, "Its events, oldest first");
  command->add_flag("-f,--follow", wanted->follow, "Its events as they come, until it ends")
      ->excludes(events);
  command->callback([wanted, &call] { call.status = run_job(call, *wanted); });
}

}  // namespace tandem::gateway::command
