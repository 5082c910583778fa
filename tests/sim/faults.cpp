#include "tests/sim/faults.hpp"

#include "tests/sim/load.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

namespace tandem::sim {
namespace {

using std::chrono::milliseconds;

constexpr auto fault_period = milliseconds(100);

}  // namespace

void faults::begin() {
  hurt_later();
}

void faults::end() {
  calm_ = true;
  time_.let_stall(false);
  on_->slowness.clear();
  *on_->store_silent = false;
  for (auto& one : cluster_.machines()) cluster_.join_again(one);
}

// A sole device gets as many a second as each of eight: a job gives up after 20 attempts in vain.
void faults::hurt_later() {
  time_.after(fault_period + milliseconds(faults_.below(900)) * std::max(1, 8 / how_.devices),
              [this] {
                if (calm_) return;
                hurt();
                hurt_later();
              });
}

void faults::hurt() {
  const double kind = faults_.share();
  if (kind < 0.35) {
    kill_device();
  } else if (kind < 0.5) {
    kill_coordinator();
  } else if (kind < 0.55) {
    lose_devices_of(some_machine());
  } else if (kind < 0.7) {
    cut_off(some_machine());
  } else if (kind < 0.75) {
    lose_machine(some_machine());
  } else if (kind < 0.88) {
    const double factor = 1.0 + static_cast<double>(faults_.below(8));
    on_->slowness[some_device(faults_, how_)] = factor;
  } else if (kind < 0.95) {
    on_->slowness.clear();
  } else {
    silence_store();
  }
}

// No other head leads meanwhile: this one goes on once it hears of the store again.
void faults::silence_store() {
  if (std::exchange(*on_->store_silent, true)) return;
  ++silences_;
  time_.after(milliseconds(500 + faults_.below(4'000)), [this] { *on_->store_silent = false; });
}

void faults::kill_device() {
  const auto name = some_device(faults_, how_);
  const auto devices = cluster_.gpus();
  const auto it = devices.find(name);
  if (it == devices.end()) return;
  ++crashes_;
  caf::anon_send_exit(it->second, caf::exit_reason::kill);
}

void faults::kill_coordinator() {
  const auto now = cluster_.coordinator_now();
  if (!now) return;
  ++crashes_;
  caf::anon_send_exit(now, caf::exit_reason::kill);
}

machine& faults::some_machine() {
  auto& all = cluster_.machines();
  return all[faults_.below(all.size())];
}

void faults::lose_devices_of(const machine& on) {
  for (const auto& [name, device] : cluster::gpus_of(on)) {
    ++crashes_;
    caf::anon_send_exit(device, caf::exit_reason::kill);
  }
}

// The network between it and the head is gone for a while; its devices stay as they are.
void faults::cut_off(machine& there) {
  if (!there.connection || !there.connected) return;
  ++cuts_;
  cluster_.cut(there);
  time_.after(milliseconds(20 + faults_.below(2'000)),
              [this, &there] { cluster_.join_again(there); });
}

void faults::lose_machine(machine& there) {
  if (!there.connection || !there.connected) return;
  ++cuts_;
  crashes_ += cluster_.lose(there);
  time_.after(milliseconds(50 + faults_.below(3'000)),
              [this, &there] { cluster_.join_again(there); });
}

}  // namespace tandem::sim
