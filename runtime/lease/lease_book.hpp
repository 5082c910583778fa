// The coordinator's book: who holds each device, in which role, at which epoch. Pure state: orders
// and facts go in, leases come out. The rule that holds: one lease per device and epoch, and a
// device's epochs only grow, also across devices that died and came back and coordinators that did.
#pragma once

#include "runtime/result.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::lease {

using epoch = std::uint64_t;

// shared: serving and one job, time-sliced; serving first at every boundary between two pieces.
enum class role : std::uint8_t { idle, serve, train, shared };
std::string_view name_of(role r);
std::optional<role> role_from(std::string_view name);
constexpr bool serves(role r) { return r == role::serve || r == role::shared; }
constexpr bool trains(role r) { return r == role::train || r == role::shared; }

struct lease {
  std::string device;
  role held_as = role::idle;
  std::string holder;  // "serve SmolLM2-135M-Instruct", "ftjob-…" when it only trains; empty: idle
  tandem::lease::epoch at = 0;
  std::string guest;  // of a shared device: the job that trains between the holder's steps
  // Tenures: since when it serves, and trains its job, without a break. A change of role that
  // leaves a side alone does not end that side's tenure, so nothing it has ordered is void. 0: does
  // not. Orders of serving carry serve_since, orders of training train_since.
  tandem::lease::epoch serve_since = 0;
  tandem::lease::epoch train_since = 0;

  // The job that trains here; empty: none.
  const std::string& job() const { return held_as == role::train ? holder : guest; }
  bool operator==(const lease&) const = default;
};

class lease_book {
 public:
  // A device appears (or comes back): idle, at a higher epoch than any order it may have seen.
  lease add(std::string_view device);
  // A device is gone. Its epoch is remembered.
  void remove(std::string_view device);
  // The device's next lease, at a new epoch. `server` is who serves on it and `job` who trains on
  // it, where the role says so. Refused: a device that is not there, a role without its holder.
  result<lease> lend(std::string_view device, role as, std::string_view server,
                     std::string_view job);
  // After a restart: what was written, and an epoch no lower than any that was given out.
  void restore(const std::vector<lease>& leases, epoch newest);

  const lease* find(std::string_view device) const;
  std::vector<lease> leases() const;  // by device name
  epoch newest() const { return newest_; }

 private:
  std::map<std::string, lease, std::less<>> leases_;
  epoch newest_ = 0;
};

// The parameter of a refusal of admit_serving and admit_training: the tenure is over, or another's.
inline constexpr std::string_view tenure_ended = "tenure";

// What a GPU actor asks of every order: does it belong to the tenure that this device is in?
class lease_guard {
 public:
  // Takes a newer lease over; refuses one that is not newer with both numbers.
  result<void> take(const lease& now);
  result<void> admit_serving(epoch order) const;
  result<void> admit_training(epoch order) const;
  // Opening and leaving a job does not depend on the role, only on this life of the device: an
  // order from before its first lease is refused.
  result<void> admit_residency(epoch order) const;
  const lease& now() const { return now_; }

 private:
  lease now_;
  epoch first_ = 0;
};

}  // namespace tandem::lease
