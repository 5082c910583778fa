// The node actor: starts this machine's devices, each a GPU actor in this process or a worker
// process, watches them and starts them again when they die, with growing pauses and a limit. It
// ends after its devices: whoever sees it gone may start them anew.
#pragma once

#include "actors/borrower.hpp"
#include "actors/messages.hpp"
#include "runtime/device_spec.hpp"
#include "runtime/restart_pace.hpp"
#include "runtime/serve/device.hpp"

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tandem::actors {

// Makes the device a GPU actor will own: the CPU device in life, a fake in tests.
using device_factory = std::function<std::unique_ptr<serve::device>(const device_spec&)>;

// A device's process. Its GPU actor makes itself known to the coordinator.
class worker {
 public:
  virtual ~worker() = default;  // ends it
  virtual void ask_to_end() = 0;
  virtual std::uint64_t process_id() const = 0;
};
// `ended` is called from any thread when it ends by itself, with how.
using worker_factory = std::function<result<std::unique_ptr<worker>>(
    const device_spec&, std::function<void(std::uint64_t process, std::string how)> ended)>;

struct node_options {
  std::vector<device_spec> devices;
  device_factory make = serve::make_device;
  borrower_actor borrower;      // of devices in this process; null: the head's files are here
  worker_factory start_worker;  // when set, each device lives in a process of its own
  bool own_threads = true;      // a real device's actor has a thread of its own
  int restarts_max = 5;         // soon after each other
  std::chrono::milliseconds first_pause{100};
  // A device stays down, with why; nobody to tell: it is in the log.
  std::function<void(const std::string&, const error&)> gave_up;
};

struct node_state {
  struct watched {
    device_spec spec;
    gpu_actor actor;
    std::unique_ptr<worker> process;
    std::uint64_t life = 0;  // its process
    restart_pace pace{0};
    caf::actor_clock::time_point started{};
  };
  node_options options;
  coordinator_actor coordinator;  // empty: not told yet
  std::map<std::string, watched> devices;
  std::optional<caf::error> ends;  // with this, once no device is left

  static inline const char* name = "node";
};

node_actor::behavior_type node(node_actor::stateful_pointer<node_state> self, node_options options,
                               coordinator_actor coordinator);

}  // namespace tandem::actors
