// The coordinator's book: who holds each device, in which role, at which epoch. Pure state: orders
// and facts go in, leases come out. The rule that holds: one holder per device and epoch, and a
// device's epochs only grow, also across devices that died and came back.
#pragma once

#include "runtime/result.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::lease {

using epoch = std::uint64_t;

enum class role : std::uint8_t { idle, serve, train, shared };
std::string_view name_of(role r);

struct lease {
  std::string device;
  role held_as = role::idle;
  std::string holder;  // "serve SmolLM2-135M-Instruct", "job ftjob-…"; empty when idle
  tandem::lease::epoch at = 0;
  std::string guest;  // of a shared device: who trains on it between the holder's steps
  bool operator==(const lease&) const = default;
};

class lease_book {
 public:
  // A device appears (or comes back): idle, at a higher epoch than any order it may have seen.
  lease add(std::string_view device);
  // A device is gone. Its epoch is remembered.
  void remove(std::string_view device);
  // Lends the device; refuses what is not there.
  result<lease> lend(std::string_view device, role as, std::string_view holder);
  // A device lent to serving takes a guest that trains between its steps, and loses it again. The
  // epoch stays: nothing that was ordered is void. Refused for a device that serves nobody or has
  // another guest.
  result<lease> share(std::string_view device, std::string_view guest);
  void end_share(std::string_view device, std::string_view guest);

  const lease* find(std::string_view device) const;
  std::vector<lease> leases() const;  // by device name
  std::vector<std::string> idle_devices() const;

 private:
  std::map<std::string, lease, std::less<>> leases_;
  epoch newest_ = 0;
};

// What a GPU actor asks of every order: is its epoch the newest this device has seen?
class epoch_guard {
 public:
  // Takes a newer epoch over; refuses an older one with both numbers.
  result<void> admit(epoch order);
  epoch newest() const { return newest_; }

 private:
  epoch newest_ = 0;
};

}  // namespace tandem::lease
