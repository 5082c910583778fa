#include "actors/lease_board.hpp"

#include <algorithm>
#include <utility>

namespace tandem::actors {

void lease_board::put(lease::report now) {
  {
    const std::lock_guard lock(mutex_);
    newest_ = std::move(now);
  }
  tell();
}

std::optional<lease::report> lease_board::newest() const {
  const std::lock_guard lock(mutex_);
  return newest_;
}

std::uint64_t lease_board::add(lease::event what) {
  std::uint64_t given = 0;
  {
    const std::lock_guard lock(mutex_);
    given = what.sequence = ++sequence_;
    events_.push_back(std::move(what));
    if (events_.size() > events_kept) events_.pop_front();
  }
  tell();
  return given;
}

void lease_board::complete(lease::epoch at, std::int64_t held_after_us,
                           std::int64_t first_work_after_us) {
  const std::lock_guard lock(mutex_);
  const auto it = std::find_if(events_.rbegin(), events_.rend(), [at](const lease::event& e) {
    return e.kind == "move" && e.at == at;
  });
  if (it == events_.rend()) return;
  if (held_after_us >= 0) it->held_after_us = held_after_us;
  if (first_work_after_us < 0) return;
  if (it->first_work_after_us < 0)
    move_time.observe(static_cast<double>(first_work_after_us) * 1e-6);
  it->first_work_after_us = first_work_after_us;
}

void lease_board::explain_loss(std::string_view device, std::string why) {
  const std::lock_guard lock(mutex_);
  const auto it = std::find_if(events_.rbegin(), events_.rend(), [&](const lease::event& e) {
    return e.kind == "device_lost" && e.device == device;
  });
  if (it != events_.rend()) it->why = std::move(why);
}

std::vector<lease::event> lease_board::since(std::uint64_t after, std::size_t limit) const {
  const std::lock_guard lock(mutex_);
  const auto from =
      std::partition_point(events_.begin(), events_.end(),
                           [after](const lease::event& e) { return e.sequence <= after; });
  const auto count = std::min(limit, static_cast<std::size_t>(events_.end() - from));
  return {from, from + static_cast<std::ptrdiff_t>(count)};
}

std::vector<lease::event> lease_board::history(std::string_view device, std::size_t limit) const {
  const std::lock_guard lock(mutex_);
  std::vector<lease::event> found;
  for (auto it = events_.rbegin(); it != events_.rend() && found.size() < limit; ++it)
    if (device.empty() || it->device == device) found.push_back(*it);
  return found;
}

int lease_board::listen(std::function<void()> listener) {
  const std::lock_guard lock(listeners_mutex_);
  listeners_.emplace(++listener_number_, std::move(listener));
  return listener_number_;
}

void lease_board::unlisten(int number) {
  const std::lock_guard lock(listeners_mutex_);
  listeners_.erase(number);
}

void lease_board::tell() {
  const std::lock_guard lock(listeners_mutex_);
  for (const auto& [number, listener] : listeners_) listener();
}

}  // namespace tandem::actors
