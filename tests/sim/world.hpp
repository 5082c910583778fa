// A whole cluster of fake devices in one thread of virtual time: the real actors, a seed that
// orders their messages and injects faults, and a checker of what must hold whatever happens.
#pragma once

#include "runtime/lease/lease_book.hpp"
#include "runtime/lease/policy.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace tandem::sim {

struct knobs {
  int devices = 4;
  int nodes = 1;         // the head's own, and others behind connections that can be cut
  int heads = 1;         // processes that may lead, each on a machine of its own; one does
  double seconds = 6.0;  // of load and faults; then quiet, until everything has ended
  double requests_per_second = 0.0;  // 0: three a device
  double moves_per_second = 8.0;     // orders by hand
  bool faults = true;                // crashes, restarts, cuts, slow devices, a silent store,
                                     // heads that die or are cut off
  bool devices_apart = false;        // jobs' devices share no memory: couriers move it
  double memory_filled = 0.6;        // of each device, with everything resident
  // Broken on purpose, to see that it is found: leases are granted and never written; a device does
  // not compare an order's epoch with its own; the store takes what a head writes that another one
  // has followed.
  bool book_loses_writes = false;
  bool epochs_unchecked = false;
  bool fence_unchecked = false;
  std::chrono::milliseconds serve_piece{15};
  std::chrono::milliseconds train_piece{60};
};

struct outcome {
  std::vector<std::string> violations;  // empty: everything held
  std::uint64_t hash = 0;               // of the whole run: the same for the same seed
  std::uint64_t messages = 0;
  std::uint64_t moves = 0;  // leases that gave a device another role
  std::uint64_t jobs = 0;
  std::uint64_t requests = 0;
  std::int64_t training_steps = 0;
  int crashes = 0;
  int cuts = 0;      // of connections, for a while or with the machine behind it
  int silences = 0;  // of the store, towards a head
  int head_losses = 0;
  std::uint64_t asked_again = 0;  // requests whose head died
  double virtual_seconds = 0.0;
  double busy_device_seconds = 0.0;
  double peak_memory = 0.0;  // of any device, as a share
};

outcome run(std::uint64_t seed, const knobs& how);

// The knobs a seed draws: 1 to 64 devices, loads and speeds of all kinds.
knobs drawn(std::uint64_t seed);

}  // namespace tandem::sim
