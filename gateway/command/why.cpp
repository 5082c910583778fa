// `tandem why DEVICE`: the last decisions for it, with the numbers that made them.
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

struct why_call {
  std::string device;
  int limit = 5;
};

const value* find_device(const value& leases, const std::string& name) {
  for (const value& device : list(member(leases, "devices")))
    if (words(member(device, "device")) == name) return &device;
  return nullptr;
}

// 0.25 as it is, 120.0 as "120".
std::string plain_number(const value& v) { return fmt::format("{:.6g}", number_or(v, 0)); }

std::string milliseconds(const value& us) {
  return fmt::format("{:.1f} ms", number_or(us, 0) * 1e-3);
}

// "queued 0, busy 0.25"
std::string numbers_of(const value& event) {
  std::string all;
  if (const value::object* given = member(event, "numbers").if_object())
    for (const auto& [name, v] : *given)
      all += fmt::format("{}{} {}", all.empty() ? "" : ", ", name, plain_number(v));
  return all;
}

void print_now(std::ostream& out, const value& device, std::int64_t now_ms) {
  const std::int64_t since_ms = integer_or(member(device, "since_ms"), now_ms);
  const std::string pin = words(member(device, "pin"));
  const std::string next = words(member(device, "moving_to"));
  out << fmt::format("{}: {} for {} (epoch {}, held by {}){}{}\n", words(member(device, "device")),
                     words(member(device, "role")), human_duration((now_ms - since_ms) / 1000),
                     words(member(device, "epoch")), held_by(device),
                     next.empty() ? "" : ", moving to " + next,
                     pin.empty() ? "" : ", by hand until `tandem assign … auto`");
  if (const std::string why = words(member(device, "why")); !why.empty()) out << why << '\n';
}

void print_decision(std::ostream& out, const value& event) {
  out << '\n' << event_line(event) << '\n';
  if (const std::string numbers = numbers_of(event); !numbers.empty())
    out << "    " << numbers << '\n';
  std::string took;
  if (const value& held = member(event, "held_after_us"); !held.is_null())
    took = "held after " + milliseconds(held);
  if (const value& worked = member(event, "first_work_after_us"); !worked.is_null())
    took += fmt::format("{}first work after {}", took.empty() ? "" : ", ", milliseconds(worked));
  if (!took.empty()) out << fmt::format("    epoch {}, {}\n", words(member(event, "epoch")), took);
}

int run_why(const invocation& call, const why_call& wanted) {
  auto client = connect(call);
  if (!client) return refuse_usage(call.io, client.error().detail);
  const auto leases = client->get_json("/admin/leases");
  if (!leases) return refuse(call.io, leases.error());
  const value* device = find_device(*leases, wanted.device);
  const auto unknown = [&] {
    return refuse(call.io,
                  {errc::not_found,
                   fmt::format("no device {}: there are {}", wanted.device, device_names(*leases)),
                   {}});
  };
  if (!is_device_name(wanted.device)) return unknown();
  const auto history = client->get_json(
      fmt::format("/admin/leases/history?device={}&limit={}", wanted.device, wanted.limit));
  if (!history) return refuse(call.io, history.error());
  const value::array& events = list(member(*history, "data"));
  if (device == nullptr && events.empty()) return unknown();
  if (call.json) {
    call.io.out << value(value::object{{"device", device ? *device : value()},
                                       {"decisions", member(*history, "data")}})
                       .to_json()
                << std::endl;
    return done;
  }
  if (device != nullptr)
    print_now(call.io.out, *device, integer_or(member(*leases, "time_ms"), 0));
  else
    call.io.out << wanted.device << ": gone\n";
  for (const value& event : events) print_decision(call.io.out, event);
  call.io.out << std::flush;
  return done;
}

}  // namespace

void add_why(CLI::App& app, invocation& call) {
  CLI::App* command =
      add_command(app, "why", "The last decisions for a device, newest first, with their numbers",
                  "tandem why cpu:0-1 --limit 3");
  add_server_options(*command, call);
  add_json_option(*command, call);
  auto wanted = std::make_shared<why_call>();
  command->add_option("DEVICE", wanted->device, "As `tandem leases` names it")->required();
  command->add_option("--limit", wanted->limit, "At most so many")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->callback([wanted, &call] { call.status = run_why(call, *wanted); });
}

}  // namespace tandem::gateway::command
