// What a person orders by hand, read strictly: a device's role, and the policy. Whether the order
// can be is the coordinator's to say.
#pragma once

#include "gateway/openai/request_body.hpp"
#include "runtime/lease/policy.hpp"
#include "runtime/result.hpp"

#include <optional>
#include <string>

namespace tandem::gateway {

struct assign_order {
  std::string device;
  std::optional<lease::role> as;  // nothing: "auto", back to the policy
};
result<assign_order> read_assign(const openai::request_body& body);

// What the body names, over what holds now. Refused with the bounds: unknown keys, values out of
// range.
result<lease::policy_settings> read_policy(const openai::request_body& body,
                                           lease::policy_settings now);
// For /openapi.json: the same keys and bounds.
std::string assign_schema();
std::string policy_schema();

}  // namespace tandem::gateway
