#include "tests/sim/faults.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

namespace tandem::sim {
namespace {

using std::chrono::milliseconds;

constexpr auto fault_period = milliseconds(100);

}  // namespace

void faults::begin() { hurt_later(); }

void faults::end() {
  calm_ = true;
  time_.let_stall(false);
  on_->slowness.clear();
  for (auto& one : cluster_.heads()) {
    one.cut_from_store(false);
    for (auto& there : cluster_.machines()) cluster_.heal(there, one);
  }
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
  if (how_.heads > 1 && faults_.chance(0.15)) return hurt_head();
  const double kind = faults_.share();
  if (kind < 0.35) {
    kill_device();
  } else if (kind < 0.5) {
    kill_coordinator();
  } else if (kind < 0.55) {
    lose_devices();
  } else if (kind < 0.7) {
    auto& there = some_machine();
    if (there.at) cut_off(there, *there.at, between(20, 2'000));
  } else if (kind < 0.75) {
    lose_machine();
  } else if (kind < 0.88) {
    make_slow();
  } else if (kind < 0.95) {
    on_->slowness.clear();
  } else {
    silence_store();
  }
}

// The one that leads dies, loses its session, or is cut off from the store, from machines, or from
// both.
void faults::hurt_head() {
  auto* which = leader();
  if (!which) return;
  const double kind = faults_.share();
  if (kind < 0.45) return cluster_.kill(*which, faults_.chance(0.7));
  if (kind < 0.65) return which->lose_session();
  const auto length = between(300, 4'000);
  const bool from_store = faults_.chance(0.7);
  if (from_store) silence(*which, length);
  if (from_store && faults_.chance(0.5)) return;
  for (auto& there : cluster_.machines())
    if (there.hosts != which && faults_.chance(0.5)) cut_off(there, *which, length);
}

milliseconds faults::between(std::uint64_t least, std::uint64_t more) {
  return milliseconds(least + faults_.below(more));
}

// --- devices and coordinators
// ----------------------------------------------------------------------------------

void faults::kill_device() {
  const auto& names = cluster_.devices();
  const auto devices = cluster_.gpus();
  const auto it = devices.find(names[faults_.below(names.size())]);
  if (it == devices.end()) return;
  ++crashes_;
  caf::anon_send_exit(it->second, caf::exit_reason::kill);
}

void faults::kill_coordinator() {
  auto* of = leader();
  const auto now = of ? of->coordinator_now() : actors::coordinator_actor();
  if (!now) return;
  ++crashes_;
  caf::anon_send_exit(now, caf::exit_reason::kill);
}

void faults::lose_devices() {
  const auto& there = some_machine();
  const bool leads = there.hosts && there.hosts->is_up();
  for (const auto& [name, device] : gpus_of(leads ? there.hosts->node() : there.node)) {
    ++crashes_;
    caf::anon_send_exit(device, caf::exit_reason::kill);
  }
}

void faults::make_slow() {
  const auto& names = cluster_.devices();
  const auto& name = names[faults_.below(names.size())];
  on_->slowness[name] = 1.0 + static_cast<double>(faults_.below(8));
}

// --- machines
// ----------------------------------------------------------------------------------

machine& faults::some_machine() {
  auto& all = cluster_.machines();
  return all[faults_.below(all.size())];
}

void faults::cut_off(machine& there, head& from, milliseconds length) {
  ++cuts_;
  cluster_.cut(there, from, faults_.chance(0.5));
  time_.after(length, [this, &there, &from] { cluster_.heal(there, from); });
}

// Another one joins under its name later.
void faults::lose_machine() {
  auto& there = some_machine();
  if (!there.joins) return;
  ++cuts_;
  crashes_ += cluster_.lose(there);
  time_.after(between(50, 3'000), [this, &there] { cluster_.join(there); });
}

// --- heads and their store
// ----------------------------------------------------------------------------------

// The newest that takes requests, if it has not been followed yet.
head* faults::leader() {
  head* found = nullptr;
  for (auto* one : cluster_.open_heads())
    if (!found || one->lead() > found->lead()) found = one;
  return found;
}

// Of all heads: nobody takes the lead meanwhile.
void faults::silence_store() {
  const auto length = between(500, 4'000);
  for (auto& one : cluster_.heads()) silence(one, length);
}

void faults::silence(head& of, milliseconds length) {
  ++silences_;
  of.cut_from_store(true);
  time_.after(length, [&of] { of.cut_from_store(false); });
}

}  // namespace tandem::sim
