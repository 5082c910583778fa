#include "gateway/leases/lease_control.hpp"

#include <utility>

namespace tandem::gateway {

namespace {

class control_by_actor final : public lease_control {
 public:
  explicit control_by_actor(actors::gateway_actor door) : door_(std::move(door)) {}

  void assign(std::string device, std::optional<lease::role> as, lease_answer answer) override {
    actors::assign order;
    order.device = std::move(device);
    order.by_policy = !as;
    order.as = as.value_or(lease::role::idle);
    caf::anon_send(door_, actors::submit_assign{std::move(order), std::move(answer)});
  }
  void set_policy(const lease::policy_settings& to, policy_answer answer) override {
    caf::anon_send(door_, actors::submit_policy{to, std::move(answer)});
  }

 private:
  const actors::gateway_actor door_;
};

}  // namespace

std::shared_ptr<lease_control> lease_control_by(actors::gateway_actor door) {
  return std::make_shared<control_by_actor>(std::move(door));
}

}  // namespace tandem::gateway
