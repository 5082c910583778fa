#include "tests/sim/timeline.hpp"

#include <algorithm>
#include <utility>

namespace tandem::sim {
namespace {

constexpr double stall_chance = 0.004;  // a message

}  // namespace

void timeline::end() {
  for (auto* who : std::exchange(stalled_, {})) scheduler_.jobs.push_back(who);
  for (auto it = housed_.rbegin(); it != housed_.rend(); ++it)
    caf::anon_send_exit(*it, caf::exit_reason::user_shutdown);
  scheduler_.run();
  housed_.clear();
}

void timeline::run_until(clock_time end) {
  while (!is_endless() && step(end)) {
  }
}

// One message of a seeded actor; where nobody has one, time passes to the next thing due.
bool timeline::step(clock_time end) {
  auto& jobs = scheduler_.jobs;
  if (!jobs.empty()) {
    // Now and then everybody is slow: time passes though there is mail.
    if (schedule_.chance(0.002)) {
      pass(std::min(end, now() + std::chrono::microseconds(schedule_.below(20'000))));
      return true;
    }
    const auto index = schedule_.below(jobs.size());
    std::swap(jobs[0], jobs[index]);
    hash_ = fold(hash_, index);
    if (stalls_ && schedule_.chance(stall_chance)) {
      stall();
      return true;
    }
    ++messages_;
    return witness_.run_once();
  }
  auto next = end;
  const auto& due = scheduler_.clock().schedule();
  if (!due.empty()) next = std::min(next, due.begin()->first);
  if (!events_.empty()) next = std::min(next, events_.begin()->first);
  if (next <= now() && next >= end) return false;
  pass(next);
  return now() < end || !jobs.empty();
}

// The thread of whoever is next gets no time for a while, and its mail gathers.
void timeline::stall() {
  stalled_.push_back(scheduler_.jobs.front());
  scheduler_.jobs.pop_front();
  const auto most = schedule_.chance(0.05) ? 2'000'000 : schedule_.chance(0.2) ? 300'000 : 5'000;
  after(std::chrono::microseconds(schedule_.below(most)), [this, who = stalled_.back()] {
    std::erase(stalled_, who);
    scheduler_.jobs.push_back(who);
  });
}

void timeline::pass(clock_time to) {
  if (to > now())
    scheduler_.advance_time(to - now());
  else
    scheduler_.clock().trigger_expired_timeouts();
  while (!events_.empty() && events_.begin()->first <= now()) {
    const auto what = events_.begin()->second;
    events_.erase(events_.begin());
    what();
  }
}

}  // namespace tandem::sim
