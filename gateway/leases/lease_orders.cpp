#include "gateway/leases/lease_orders.hpp"

#include "gateway/refusal.hpp"
#include "runtime/nearest_name.hpp"

#include <fmt/format.h>

#include <array>
#include <string_view>
#include <vector>

namespace tandem::gateway {

namespace {

using openai::bad_value;
using openai::json_field;

constexpr std::size_t name_bytes_max = 256;
constexpr std::array<std::string_view, 4> orders = {"serve", "train", "shared", "auto"};
constexpr std::array policies = {lease::policy_kind::latency_first, lease::policy_kind::train_first,
                                 lease::policy_kind::fixed};

struct policy_number {
  std::string_view name;
  int lease::policy_settings::*member;
  int low;
  int high;
};
// The bounds of the settings of the same names.
constexpr int devices_most = 1 << 20;
constexpr int hour_ms = 3'600'000;
constexpr std::array<policy_number, 5> policy_numbers = {{
    {"min_serve_devices", &lease::policy_settings::min_serve_devices, 1, devices_most},
    {"max_train_devices", &lease::policy_settings::max_train_devices, 0, devices_most},
    {"cooldown_ms", &lease::policy_settings::cooldown_ms, 0, hour_ms},
    {"ttft_target_ms", &lease::policy_settings::ttft_target_ms, 1, hour_ms},
    {"itl_target_ms", &lease::policy_settings::itl_target_ms, 1, hour_ms},
}};

// "a, b or c"
template <class Names>
std::string one_of(const Names& names) {
  std::string all;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i > 0) all += i + 1 == names.size() ? " or " : ", ";
    all += fmt::format("'{}'", names[i]);
  }
  return all;
}

error unknown_key(std::string_view key, const std::vector<std::string>& known) {
  const auto near = nearest_name(key, known);
  std::string all;
  for (const std::string& name : known) all += (all.empty() ? "" : ", ") + name;
  return {errc::bad_request,
          fmt::format("Unknown parameter: '{}'{}. What can be given: {}.", quotable(key),
                      near ? fmt::format("; did you mean '{}'?", *near) : "", all),
          quotable(key)};
}

std::vector<std::string_view> policy_names() {
  std::vector<std::string_view> names;
  for (const auto kind : policies) names.push_back(lease::name_of(kind));
  return names;
}

std::string enumeration(const std::vector<std::string_view>& names) {
  std::string all;
  for (const std::string_view name : names)
    all += fmt::format("{}\"{}\"", all.empty() ? "" : ",", name);
  return fmt::format(R"({{"enum":[{}]}})", all);
}

}  // namespace

result<assign_order> read_assign(const openai::request_body& body) {
  std::optional<std::string> device;
  std::optional<std::string> ordered;
  for (const auto member : body.fields()) {
    const json_field field{std::string(member.key), member.value};
    if (member.key != "device" && member.key != "role")
      return unknown_key(member.key, {"device", "role"});
    const auto words = openai::read_string(field, name_bytes_max);
    if (!words) return words.error();
    (member.key == "device" ? device : ordered) = std::string(*words);
  }
  if (!device) return openai::missing("device");
  if (!ordered) return openai::missing("role");
  if (device->empty()) return bad_value("device", "expected a device's name, such as 'cpu:0'");
  if (*ordered == "auto") return assign_order{*std::move(device), std::nullopt};
  const auto role = lease::role_from(*ordered);
  if (!role || *role == lease::role::idle)
    return bad_value("role",
                     fmt::format("expected {}, but got '{}'", one_of(orders), quotable(*ordered)));
  return assign_order{*std::move(device), role};
}

result<lease::policy_settings> read_policy(const openai::request_body& body,
                                           lease::policy_settings now) {
  for (const auto member : body.fields()) {
    const json_field field{std::string(member.key), member.value};
    if (member.key == "name") {
      const auto name = openai::read_string(field, name_bytes_max);
      if (!name) return name.error();
      const auto kind = lease::policy_from(*name);
      if (!kind)
        return bad_value("name", fmt::format("expected {}, but got '{}'", one_of(policy_names()),
                                             quotable(*name)));
      now.kind = *kind;
      continue;
    }
    const policy_number* found = nullptr;
    for (const auto& one : policy_numbers)
      if (one.name == member.key) found = &one;
    if (found == nullptr) {
      std::vector<std::string> known = {"name"};
      for (const auto& one : policy_numbers) known.emplace_back(one.name);
      return unknown_key(member.key, known);
    }
    const auto number = openai::read_integer(field, {found->low, found->high});
    if (!number) return number.error();
    now.*(found->member) = static_cast<int>(*number);
  }
  return now;
}

std::string assign_schema() {
  return fmt::format(
      R"({{"type":"object","required":["device","role"],"properties":{{"device":{{"type":"string"}},"role":{}}}}})",
      enumeration({orders.begin(), orders.end()}));
}

std::string policy_schema() {
  std::string numbers;
  for (const auto& one : policy_numbers)
    numbers += fmt::format(R"(,"{}":{{"type":"integer","minimum":{},"maximum":{}}})", one.name,
                           one.low, one.high);
  return fmt::format(R"({{"type":"object","properties":{{"name":{}{}}}}})",
                     enumeration(policy_names()), numbers);
}

}  // namespace tandem::gateway
