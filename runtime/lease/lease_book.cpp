#include "runtime/lease/lease_book.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace tandem::lease {
namespace {

constexpr std::array<std::string_view, 4> role_names{"idle", "serve", "train", "shared"};

// The parameter says that the order, and nothing else of its sender, is out of date.
error stale(std::string_view what, epoch order, epoch now) {
  auto detail =
      now == 0
          ? fmt::format("an order of {} of epoch {} came to a device that does not", what, order)
          : fmt::format("an order of {} of epoch {} came in epoch {}", what, order, now);
  return {errc::conflict, std::move(detail), std::string(tenure_ended)};
}

}  // namespace

std::string_view name_of(role r) { return role_names[static_cast<std::size_t>(r)]; }

std::optional<role> role_from(std::string_view name) {
  const auto it = std::find(role_names.begin(), role_names.end(), name);
  if (it == role_names.end()) return std::nullopt;
  return static_cast<role>(it - role_names.begin());
}

lease lease_book::add(std::string_view device) {
  lease fresh;
  fresh.device = device;
  fresh.at = ++newest_;
  leases_.insert_or_assign(fresh.device, fresh);
  return fresh;
}

void lease_book::remove(std::string_view device) {
  if (auto it = leases_.find(device); it != leases_.end()) leases_.erase(it);
}

result<lease> lease_book::lend(std::string_view device, role as, std::string_view server,
                               std::string_view job) {
  auto it = leases_.find(device);
  if (it == leases_.end())
    return error{errc::not_found, fmt::format("no device '{}' in the cluster", device), "device"};
  if ((serves(as) && server.empty()) || (trains(as) && job.empty()))
    return error{errc::conflict,
                 fmt::format("nobody is there to {} on {}",
                             serves(as) && server.empty() ? "serve" : "train", device),
                 "role"};
  const lease& was = it->second;
  const bool server_stays = serves(was.held_as) && was.holder == server;
  const bool job_stays = trains(was.held_as) && was.job() == job;
  lease now;
  now.device = device;
  now.held_as = as;
  now.at = ++newest_;
  if (serves(as)) now.holder = server;
  if (as == role::train) now.holder = job;
  if (as == role::shared) now.guest = job;
  if (serves(as)) now.serve_since = server_stays ? was.serve_since : now.at;
  if (trains(as)) now.train_since = job_stays ? was.train_since : now.at;
  it->second = now;
  return now;
}

void lease_book::restore(const std::vector<lease>& leases, epoch newest) {
  newest_ = std::max(newest_, newest);
  for (const auto& held : leases) {
    newest_ = std::max(newest_, held.at);
    leases_.insert_or_assign(held.device, held);
  }
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

result<void> lease_guard::take(const lease& now) {
  if (now.at <= now_.at)
    return error{errc::conflict,
                 fmt::format("a lease of epoch {} came after epoch {}", now.at, now_.at), ""};
  if (first_ == 0) first_ = now.at;
  now_ = now;
  return {};
}

result<void> lease_guard::admit_serving(epoch order) const {
  if (now_.serve_since == 0 || order != now_.serve_since)
    return stale("serving", order, now_.serve_since);
  return {};
}

result<void> lease_guard::admit_training(epoch order) const {
  if (now_.train_since == 0 || order != now_.train_since)
    return stale("training", order, now_.train_since);
  return {};
}

result<void> lease_guard::admit_residency(epoch order) const {
  if (first_ == 0 || order < first_)
    return error{
        errc::conflict,
        fmt::format("an order of epoch {} came to a device that began at epoch {}", order, first_),
        ""};
  return {};
}

}  // namespace tandem::lease
