// The coordinator: keeps the cluster's book of leases and tells holders what they hold. Every
// device is lent to serving; a job that trains is the guest of devices that serve.
#pragma once

#include "actors/messages.hpp"

#include <map>
#include <string>

namespace tandem::actors {

struct coordinator_state {
  struct member {
    gpu_actor device;
  };
  lease::lease_book book;
  std::map<std::string, member> members;
  std::string serve_holder;                   // who asked for devices, and
  serve_coordinator_actor serve_coordinator;  // where to find it
  std::string job;
  train_coordinator_actor train_coordinator;

  static inline const char* name = "coordinator";
};

coordinator_actor::behavior_type coordinator(
    coordinator_actor::stateful_pointer<coordinator_state> self);

}  // namespace tandem::actors
