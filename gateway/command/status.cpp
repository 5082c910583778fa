// `tandem status`: one look at a running platform.
#include "gateway/command/commands.hpp"
#include "gateway/command/jobs.hpp"
#include "gateway/command/json_view.hpp"
#include "gateway/command/print.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <ostream>

namespace tandem::gateway::command {
namespace {

using text::value;

std::uint64_t bytes(const value& v) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(integer_or(v, 0), 0));
}

void print_models(std::ostream& out, const value& cluster) {
  std::vector<std::vector<std::string>> rows = {
      {"MODEL", "FAMILY", "PRECISION", "CONTEXT", "PARAMETERS", "VERSION"}};
  for (const value& model : list(member(cluster, "models"))) {
    rows.push_back({words(member(model, "id")), words(member(model, "family")),
                    words(member(model, "precision")), words(member(model, "context_length")),
                    fmt::format("{:.0f} M", number_or(member(model, "parameter_count"), 0) / 1e6),
                    words(member(model, "weights_version"))});
  }
  if (rows.size() > 1) print_table(out, rows);
}

std::string lease_of(const value& device) {
  const value& lease = member(device, "lease");
  return fmt::format("{} ({}, epoch {})", words(member(lease, "holder")),
                     words(member(lease, "role")), words(member(lease, "epoch")));
}

void print_devices(std::ostream& out, const value& cluster) {
  std::vector<std::vector<std::string>> rows = {
      {"DEVICE", "BACKEND", "STATE", "HELD BY", "RUNNING", "QUEUED", "TOKENS OUT", "BUSY"}};
  for (const value& device : list(member(cluster, "devices"))) {
    const bool* ready = member(device, "ready").if_bool();
    rows.push_back(
        {words(member(device, "name")),
         fmt::format("{} x{}", words(member(device, "backend")), words(member(device, "threads"))),
         ready && *ready ? "ready" : "not ready", lease_of(device),
         words(member(device, "running")), words(member(device, "queued")),
         words(member(device, "tokens_generated")),
         fmt::format("{:.1f} s", number_or(member(device, "busy_seconds"), 0))});
  }
  if (rows.size() > 1) print_table(out, rows);
}

// "cpu:0-1 memory: 312.0 MiB of 11.7 GiB: weights 96.0 MiB, kv_blocks 200.0 MiB"
void print_memory(std::ostream& out, const value& device) {
  const value& memory = member(device, "memory");
  out << fmt::format("{} memory: {} of {}", words(member(device, "name")),
                     human_memory(bytes(member(memory, "used_bytes"))),
                     human_memory(bytes(member(memory, "capacity_bytes"))));
  std::string separator = ": ";
  if (const value::object* owners = member(memory, "by_owner").if_object()) {
    for (const auto& [owner, held] : *owners) {
      if (bytes(held) == 0) continue;
      out << separator << owner << ' ' << human_memory(bytes(held));
      separator = ", ";
    }
  }
  const value& blocks = member(device, "kv_blocks");
  const double computed = number_or(member(device, "prompt_tokens_computed"), 0);
  const double cached = number_or(member(device, "prompt_tokens_cached"), 0);
  out << fmt::format(
      "\n{} KV blocks: {} of {} free, {} of them hold a prefix; {:.0f} of {:.0f} "
      "prompt tokens came from the cache; {} preemptions\n",
      words(member(device, "name")), words(member(blocks, "free")), words(member(blocks, "total")),
      words(member(blocks, "cached")), cached, cached + computed,
      words(member(device, "preemptions")));
}

// "jobs: 1 running, 2 queued", and each that runs with its step; nothing when there are none, or
// this key may not see them.
void print_jobs_in_short(std::ostream& out, http_client& client) {
  const auto jobs = list_jobs(client, 100);
  if (!jobs || jobs->empty()) return;
  std::string counts;
  for (const char* status :
       {"running", "paused", "queued", "validating_files", "succeeded", "failed", "cancelled"}) {
    const auto count = std::ranges::count(*jobs, std::string(status), &job_view::status);
    if (count > 0) counts += fmt::format("{}{} {}", counts.empty() ? "" : ", ", count, status);
  }
  out << "jobs: " << counts << '\n';
  for (const job_view& job : *jobs) {
    if (job.status != "running") continue;
    const auto rate = number(member(member(job.whole, "tandem"), "tokens_per_second"));
    out << fmt::format("job {} tunes {}: step {} of {}{}\n", job.id, job.base_model, job.step,
                       job.step_count, rate ? fmt::format(", {:.0f} tokens/s", *rate) : "");
  }
  out << std::flush;
}

void print_status(std::ostream& out, const std::string& address, const value& cluster) {
  const std::string detail = words(member(cluster, "detail"));
  out << fmt::format("{} at {}{}, {} requests inside\n\n", words(member(cluster, "state")), address,
                     detail.empty() ? "" : ": " + detail,
                     words(member(cluster, "requests_inside")));
  print_models(out, cluster);
  out << '\n';
  print_devices(out, cluster);
  out << '\n';
  for (const value& device : list(member(cluster, "devices"))) print_memory(out, device);
  if (number_or(member(cluster, "devices_lost"), 0) > 0) {
    out << fmt::format("devices lost and started again: {}\n",
                       words(member(cluster, "devices_lost")));
  }
  out << std::flush;
}

int run_status(const invocation& call) {
  auto client = connect(call);
  if (!client) return refuse_usage(call.io, client.error().detail);
  const auto cluster = client->get_json("/admin/cluster");
  if (!cluster) return refuse(call.io, cluster.error());
  if (call.json) {
    call.io.out << cluster->to_json() << std::endl;
  } else {
    print_status(call.io.out, client->address().text, *cluster);
    print_jobs_in_short(call.io.out, *client);
  }
  // Scripts ask this command whether the platform is ready.
  return words(member(*cluster, "state")) == "ready" ? done : world_said_no;
}

}  // namespace

void add_status(CLI::App& app, invocation& call) {
  CLI::App* command = add_command(app, "status", "One look at a running platform",
                                  "tandem status --json\n\nExit status 0 when it is ready. "
                                  "--api-key is the admin key, when the platform has one.");
  add_server_options(*command, call);
  add_json_option(*command, call);
  command->callback([&call] { call.status = run_status(call); });
}

}  // namespace tandem::gateway::command
