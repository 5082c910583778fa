// Virtual time and the order of messages: whose turn is next is the seed's to say, and time passes
// where nobody has mail. The witness reads along.
#pragma once

#include "tests/sim/random_stream.hpp"
#include "tests/sim/witness.hpp"
#include "tests/support/actor_world.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

namespace tandem::sim {

using clock_time = caf::actor_clock::time_point;

class timeline {
 public:
  static constexpr std::uint64_t messages_max = 3'000'000;  // busy clusters take a tenth

  timeline(std::uint64_t seed, const std::shared_ptr<ground>& on,
           const std::shared_ptr<const memory_database>& database, bool epochs_unchecked)
      : schedule_(fold(seed, 1)), witness_(world_.scheduler(), on, database, epochs_unchecked) {}

  caf::actor_system& system() { return world_.system(); }
  // It ends with `end`, as all that comes of it must: what is here by then is seen to its end.
  template <class Handle>
  Handle house(Handle actor) {
    housed_.push_back(caf::actor_cast<caf::actor>(actor));
    return actor;
  }
  void end();

  clock_time now() { return scheduler_.clock().now(); }
  void at(clock_time when, std::function<void()> what) { events_.emplace(when, std::move(what)); }
  void after(std::chrono::nanoseconds time, std::function<void()> what) {
    at(now() + time, std::move(what));
  }
  void run_until(clock_time end);
  // So many messages have come that somebody keeps others busy with nothing; nothing runs any more.
  bool is_endless() const { return messages_ >= messages_max; }
  // From now on threads get no time now and then, or do again.
  void let_stall(bool stalls) { stalls_ = stalls; }

  const witness& seen() const { return witness_; }
  std::uint64_t messages() const { return messages_; }
  std::uint64_t hash() const { return hash_; }  // of whose turn it was, all along

 private:
  bool step(clock_time end);
  void stall();
  void pass(clock_time to);

  random_stream schedule_;
  std::multimap<clock_time, std::function<void()>> events_;
  std::vector<caf::resumable*> stalled_;
  std::vector<caf::actor> housed_;
  bool stalls_ = false;
  std::uint64_t messages_ = 0;
  std::uint64_t hash_ = 0;
  test::actor_world world_;
  caf::scheduler::test_coordinator& scheduler_ = world_.scheduler();
  witness witness_;
};

}  // namespace tandem::sim
