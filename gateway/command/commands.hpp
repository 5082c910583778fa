// Every command of the binary: each `add_NAME` puts one subcommand with its options and its work
// into the command line.
#pragma once

#include "gateway/command/invocation.hpp"

namespace tandem::gateway::command {

void add_up(CLI::App& app, invocation& call);
void add_join(CLI::App& app, invocation& call);
void add_worker(CLI::App& app, invocation& call);
void add_nodes(CLI::App& app, invocation& call);
void add_drain(CLI::App& app, invocation& call);
void add_chat(CLI::App& app, invocation& call);
void add_train(CLI::App& app, invocation& call);
void add_jobs(CLI::App& app, invocation& call);
void add_job(CLI::App& app, invocation& call);
void add_cancel(CLI::App& app, invocation& call);
void add_pause(CLI::App& app, invocation& call);
void add_resume(CLI::App& app, invocation& call);
void add_plot(CLI::App& app, invocation& call);
void add_models(CLI::App& app, invocation& call);
void add_pull(CLI::App& app, invocation& call);
void add_tokenize(CLI::App& app, invocation& call);
void add_render(CLI::App& app, invocation& call);
void add_status(CLI::App& app, invocation& call);
void add_top(CLI::App& app, invocation& call);
void add_events(CLI::App& app, invocation& call);
void add_leases(CLI::App& app, invocation& call);
void add_assign(CLI::App& app, invocation& call);
void add_why(CLI::App& app, invocation& call);
void add_policy(CLI::App& app, invocation& call);
void add_devices(CLI::App& app, invocation& call);
void add_config(CLI::App& app, invocation& call);
void add_bench(CLI::App& app, invocation& call);
void add_export(CLI::App& app, invocation& call);
void add_version(CLI::App& app, invocation& call);
// Commands of later versions: known by name, refused with a line that says so.
void add_commands_not_built(CLI::App& app, invocation& call);

}  // namespace tandem::gateway::command
