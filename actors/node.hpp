// The node actor: starts this machine's GPU actors, watches them and starts them again when they
// die, with growing pauses and a limit.
#pragma once

#include "actors/messages.hpp"
#include "runtime/device_spec.hpp"
#include "runtime/serve/device.hpp"

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace tandem::actors {

// Makes the device a GPU actor will own: the CPU device in life, a fake in tests.
using device_factory = std::function<std::unique_ptr<serve::device>(const device_spec&)>;

struct node_options {
  std::vector<device_spec> devices;
  device_factory make = serve::make_cpu_device;
  bool own_threads = true;  // a real device's actor has a thread of its own
  int restarts_max = 5;     // without a quiet minute between them
  std::chrono::milliseconds first_pause{100};
};

struct node_state {
  struct watched {
    device_spec spec;
    gpu_actor actor;
    int restarts = 0;
    caf::actor_clock::time_point started{};
  };
  node_options options;
  coordinator_actor coordinator;
  std::map<std::string, watched> devices;

  static inline const char* name = "node";
};

node_actor::behavior_type node(node_actor::stateful_pointer<node_state> self, node_options options,
                               coordinator_actor coordinator);

}  // namespace tandem::actors
