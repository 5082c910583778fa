// `tandem leases`: who holds each device, and why.
#include "gateway/command/commands.hpp"
#include "gateway/command/json_view.hpp"
#include "gateway/command/lease_words.hpp"
#include "gateway/command/print.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <ostream>

namespace tandem::gateway::command {
namespace {

using text::value;

constexpr std::size_t why_columns_min = 12;  // a narrower one says nothing

std::string role_of(const value& device) {
  const std::string role = words(member(device, "role"));
  const std::string next = words(member(device, "moving_to"));
  return next.empty() || next == role ? role : role + " -> " + next;
}

void print_leases(const console& io, const value& leases) {
  const std::int64_t now_ms = integer_or(member(leases, "time_ms"), 0);
  std::vector<std::vector<std::string>> rows = {
      {"DEVICE", "ROLE", "HELD BY", "EPOCH", "SINCE", "PIN", "BUSY", "WHY"}};
  for (const value& device : list(member(leases, "devices"))) {
    const std::int64_t since_ms = integer_or(member(device, "since_ms"), now_ms);
    rows.push_back({words(member(device, "device")), role_of(device), held_by(device),
                    words(member(device, "epoch")), human_duration((now_ms - since_ms) / 1000),
                    words(member(device, "pin")),
                    fmt::format("{:.0f}%", 100 * number_or(member(device, "busy"), 0)),
                    words(member(device, "why"))});
  }
  std::size_t before = 0;  // the columns in front of WHY
  for (std::size_t i = 0; i + 1 < rows.front().size(); ++i) {
    std::size_t widest = 0;
    for (const auto& row : rows) widest = std::max(widest, columns_of(row[i]));
    before += widest + 2;
  }
  const std::size_t columns = line_columns(io);
  const std::size_t left = columns > before + why_columns_min ? columns - before : why_columns_min;
  for (auto& row : rows) row.back() = shortened(row.back(), left);
  print_table(io.out, rows);
  const value& policy = member(leases, "policy");
  io.out << fmt::format(
                "\npolicy {}: at least {} serve, {} train; targets {} ms to the first token, {} ms "
                "between two; {} moves, {} refused",
                words(member(policy, "name")), words(member(policy, "min_serve_devices")),
                integer_or(member(policy, "max_train_devices"), 0) == 0
                    ? "any number"
                    : "at most " + words(member(policy, "max_train_devices")),
                words(member(policy, "ttft_target_ms")), words(member(policy, "itl_target_ms")),
                words(member(leases, "moves")), words(member(leases, "refusals")))
         << std::endl;
}

int run_leases(const invocation& call) {
  auto client = connect(call);
  if (!client) return refuse_usage(call.io, client.error().detail);
  const auto leases = client->get_json("/admin/leases");
  if (!leases) return refuse(call.io, leases.error());
  if (call.json)
    call.io.out << leases->to_json() << std::endl;
  else
    print_leases(call.io, *leases);
  return done;
}

}  // namespace

void add_leases(CLI::App& app, invocation& call) {
  CLI::App* command = add_command(app, "leases", "Who holds each device, in which role and why",
                                  "tandem leases\n\n`tandem why DEVICE` has the decisions behind "
                                  "it, `tandem assign` orders by hand.");
  add_server_options(*command, call);
  add_json_option(*command, call);
  command->callback([&call] { call.status = run_leases(call); });
}

}  // namespace tandem::gateway::command
