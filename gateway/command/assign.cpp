// `tandem assign` and `tandem policy`: orders by hand.
#include "gateway/command/commands.hpp"
#include "gateway/command/json_view.hpp"
#include "gateway/command/lease_words.hpp"
#include "gateway/command/print.hpp"

#include <fmt/format.h>
#include <CLI/Validators.hpp>

#include <memory>
#include <ostream>

namespace tandem::gateway::command {
namespace {

using text::value;

struct assign_call {
  std::string device;
  std::string role;
};

int run_assign(const invocation& call, const assign_call& wanted) {
  auto client = connect(call);
  if (!client) return refuse_usage(call.io, client.error().detail);
  const auto now = client->post_json(
      "/admin/assign",
      value(value::object{{"device", wanted.device}, {"role", wanted.role}}).to_json());
  if (!now) return refuse(call.io, now.error());
  if (call.json) {
    call.io.out << now->to_json() << std::endl;
    return done;
  }
  const std::string role = words(member(*now, "role"));
  const std::string state = fmt::format("{} is in {} (epoch {}, held by {})", wanted.device, role,
                                        words(member(*now, "epoch")), held_by(*now));
  if (wanted.role == "auto")
    call.io.out << state << "; the policy decides from now on" << std::endl;
  else if (wanted.role == role)
    call.io.out << state << " and stays there" << std::endl;
  else
    call.io.out << state << "; it moves to " << wanted.role << " now" << std::endl;
  return done;
}

struct policy_call {
  std::string name;
  std::vector<std::string> changes;  // "ttft_target_ms=300"
};

// {"name": …, "ttft_target_ms": 300}; the server knows the keys and their bounds.
result<value> changes_of(const policy_call& wanted) {
  value body{value::object{}};
  if (!wanted.name.empty()) body.set("name", wanted.name);
  for (const std::string& change : wanted.changes) {
    const std::size_t equals = change.find('=');
    const auto number = equals == std::string::npos ? result<value>(error{})
                                                    : value::from_json(change.substr(equals + 1));
    if (!number || number->if_int() == nullptr)
      return error{errc::bad_request,
                   fmt::format("--set {}: give KEY=NUMBER, such as ttft_target_ms=300", change),
                   {}};
    body.set(change.substr(0, equals), *number);
  }
  return body;
}

int run_policy(const invocation& call, const policy_call& wanted) {
  const auto body = changes_of(wanted);
  if (!body) return refuse_usage(call.io, body.error().detail);
  auto client = connect(call);
  if (!client) return refuse_usage(call.io, client.error().detail);
  const auto now = body->if_object()->empty() ? client->get_json("/admin/policy")
                                              : client->post_json("/admin/policy", body->to_json());
  if (!now) return refuse(call.io, now.error());
  if (call.json) {
    call.io.out << now->to_json() << std::endl;
    return done;
  }
  std::vector<std::vector<std::string>> rows;
  if (const value::object* all = now->if_object())
    for (const auto& [key, setting] : *all) rows.push_back({key, words(setting)});
  print_table(call.io.out, rows);
  call.io.out << std::flush;
  return done;
}

}  // namespace

void add_assign(CLI::App& app, invocation& call) {
  CLI::App* command = add_command(
      app, "assign", "Order a device into a role by hand, or back to the policy",
      "tandem assign cpu:0-1 train\n\nIt stays there until `tandem assign cpu:0-1 auto`. Nothing "
      "that runs is lost: requests go\nto other devices or are finished first, training keeps its "
      "place.");
  add_server_options(*command, call);
  add_json_option(*command, call);
  auto wanted = std::make_shared<assign_call>();
  command->add_option("DEVICE", wanted->device, "As `tandem leases` names it")->required();
  command->add_option("ROLE", wanted->role, "serve, train, shared (serving first), or auto")
      ->required()
      ->check(CLI::IsMember({"serve", "train", "shared", "auto"}));
  command->callback([wanted, &call] { call.status = run_assign(call, *wanted); });
}

void add_policy(CLI::App& app, invocation& call) {
  CLI::App* command = add_command(
      app, "policy", "Show how devices are shared, or change it until the next start",
      "tandem policy latency_first --set ttft_target_ms=300\n\nWithout a change it shows what "
      "holds. The settings of the section [share] hold at start.");
  add_server_options(*command, call);
  add_json_option(*command, call);
  auto wanted = std::make_shared<policy_call>();
  command->add_option("NAME", wanted->name, "latency_first, train_first or fixed")
      ->check(CLI::IsMember({"latency_first", "train_first", "fixed"}));
  command
      ->add_option("--set", wanted->changes,
                   "min_serve_devices, max_train_devices, cooldown_ms, ttft_target_ms or "
                   "itl_target_ms")
      ->type_name("KEY=NUMBER");
  command->callback([wanted, &call] { call.status = run_policy(call, *wanted); });
}

}  // namespace tandem::gateway::command
