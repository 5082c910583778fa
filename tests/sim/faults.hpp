// What goes wrong in a simulated cluster: somebody dies, is cut off, is slow or falls silent.
#pragma once

#include "tests/sim/cluster.hpp"

#include <memory>

namespace tandem::sim {

class faults {
 public:
  faults(std::uint64_t seed, const knobs& how, timeline& time, cluster& on,
         std::shared_ptr<ground> ground)
      : how_(how), time_(time), cluster_(on), on_(std::move(ground)), faults_(fold(seed, 3)) {}

  void begin();
  // From now on nothing goes wrong, and what was cut or slow is well again.
  void end();

  int crashes() const { return crashes_; }
  int cuts() const { return cuts_; }
  int silences() const { return silences_; }

 private:
  void hurt_later();
  void hurt();
  void hurt_head();
  std::chrono::milliseconds between(std::uint64_t least, std::uint64_t more);

  void kill_device();
  void kill_coordinator();
  void lose_devices();
  void make_slow();
  void cut_off(machine& there, head& from, std::chrono::milliseconds length);
  void lose_machine();
  void silence_store();
  void silence(head& of, std::chrono::milliseconds length);

  machine& some_machine();
  head* leader();

  const knobs& how_;
  timeline& time_;
  cluster& cluster_;
  std::shared_ptr<ground> on_;
  random_stream faults_;
  bool calm_ = false;
  int crashes_ = 0;
  int cuts_ = 0;
  int silences_ = 0;
};

}  // namespace tandem::sim
