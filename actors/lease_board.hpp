// What the coordinator tells the outside: the newest report, and the last events in order. Written
// by the coordinator, read by any thread; bounded.
#pragma once

#include "runtime/lease/report.hpp"
#include "runtime/metrics.hpp"

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::actors {

class lease_board {
 public:
  static constexpr std::size_t events_kept = 8192;

  void put(lease::report now);
  std::optional<lease::report> newest() const;

  // Gives it the next sequence number, which is returned.
  std::uint64_t add(lease::event what);
  // Of the move at this epoch, once it is known how long it took.
  void complete(lease::epoch at, std::int64_t held_after_us, std::int64_t first_work_after_us);
  // Of the newest loss of this device, once it is known how its process ended.
  void explain_loss(std::string_view device, std::string why);
  // Oldest first, with sequence > `after`, at most `limit`.
  std::vector<lease::event> since(std::uint64_t after, std::size_t limit) const;
  // Newest first; `device` empty: of all.
  std::vector<lease::event> history(std::string_view device, std::size_t limit) const;

  // Called after each `put` and `add`, from the thread that made it. Returns a number for unlisten.
  int listen(std::function<void()> listener);
  void unlisten(int number);

  // Seconds from a move's decision to the first piece of work in the new role.
  metrics::histogram move_time{metrics::token_latency_bounds()};

 private:
  void tell();

  mutable std::mutex mutex_;
  std::optional<lease::report> newest_;
  std::deque<lease::event> events_;
  std::uint64_t sequence_ = 0;
  std::mutex listeners_mutex_;
  std::map<int, std::function<void()>> listeners_;
  int listener_number_ = 0;
};

}  // namespace tandem::actors
