#include "runtime/lease/lease_book.hpp"

#include <fmt/format.h>

namespace tandem::lease {

std::string_view name_of(role r) {
  switch (r) {
    case role::idle:
      return "idle";
    case role::serve:
      return "serve";
    case role::train:
      return "train";
    case role::shared:
      return "shared";
  }
  return "idle";
}

lease lease_book::add(std::string_view device) {
  lease fresh{std::string(device), role::idle, "", ++newest_, ""};
  leases_.insert_or_assign(fresh.device, fresh);
  return fresh;
}

void lease_book::remove(std::string_view device) {
  if (auto it = leases_.find(device); it != leases_.end()) leases_.erase(it);
}

result<lease> lease_book::lend(std::string_view device, role as, std::string_view holder) {
  auto it = leases_.find(device);
  if (it == leases_.end())
    return error{errc::not_found, fmt::format("no device '{}' in the cluster", device), "device"};
  it->second = {std::string(device), as, std::string(holder), ++newest_, ""};
  return it->second;
}

result<lease> lease_book::share(std::string_view device, std::string_view guest) {
  auto it = leases_.find(device);
  if (it == leases_.end())
    return error{errc::not_found, fmt::format("no device '{}' in the cluster", device), "device"};
  auto& held = it->second;
  if (held.held_as != role::serve && !(held.held_as == role::shared && held.guest == guest))
    return error{errc::conflict,
                 fmt::format("device {} is held as {} by '{}'{} and takes no guest", device,
                             name_of(held.held_as), held.holder,
                             held.guest.empty() ? "" : " with guest '" + held.guest + "'"),
                 "device"};
  held.held_as = role::shared;
  held.guest = guest;
  return held;
}

void lease_book::end_share(std::string_view device, std::string_view guest) {
  auto it = leases_.find(device);
  if (it == leases_.end() || it->second.guest != guest) return;
  it->second.held_as = role::serve;
  it->second.guest.clear();
}

const lease* lease_book::find(std::string_view device) const {
  auto it = leases_.find(device);
  return it == leases_.end() ? nullptr : &it->second;
}

std::vector<lease> lease_book::leases() const {
  std::vector<lease> all;
  for (const auto& [name, held] : leases_) all.push_back(held);
  return all;
}

std::vector<std::string> lease_book::idle_devices() const {
  std::vector<std::string> idle;
  for (const auto& [name, held] : leases_)
    if (held.held_as == role::idle) idle.push_back(name);
  return idle;
}

result<void> epoch_guard::admit(epoch order) {
  if (order < newest_)
    return error{errc::conflict,
                 fmt::format("an order of epoch {} came after epoch {}", order, newest_), ""};
  newest_ = order;
  return {};
}

}  // namespace tandem::lease
