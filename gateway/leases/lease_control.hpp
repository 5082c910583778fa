// Orders by hand: what the HTTP side asks of whoever keeps the book of leases. The gateway actor
// stands behind it in life, a fake in tests.
#pragma once

#include "actors/messages.hpp"
#include "runtime/lease/policy.hpp"
#include "runtime/result.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace tandem::gateway {

class lease_control {
 public:
  using lease_answer = std::function<void(result<lease::lease>)>;
  using policy_answer = std::function<void(result<lease::policy_settings>)>;

  virtual ~lease_control() = default;
  // Any thread. `answer` is called at most once, from any thread; when nobody is there to answer it
  // is dropped. Nothing for `as`: back to the policy. What is answered is the lease as it is, the
  // move follows.
  virtual void assign(std::string device, std::optional<lease::role> as, lease_answer answer) = 0;
  virtual void set_policy(const lease::policy_settings& to, policy_answer answer) = 0;
};

std::shared_ptr<lease_control> lease_control_by(actors::gateway_actor door);

}  // namespace tandem::gateway
