// A worker: the process of one device. Started by the node that owns the device, which gives it
// all it needs to know on its input; ends when that input ends, or when the head is gone.
#pragma once

#include "actors/node.hpp"
#include "runtime/device_spec.hpp"
#include "runtime/result.hpp"
#include "runtime/transport/fabric.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::gateway {

struct worker_settings {
  device_spec device;
  std::string head;  // where the cluster's head is dialled
  std::string node;  // whose device it is
  std::string log_level = "info";
  std::uint64_t cache_bytes = 0;   // of models that the head has; 0: its files are here
  transport::fabric_options link;  // listen, cluster, build, secret, silent_after, block
};

// One line of JSON and back; what comes back is checked.
std::string to_line(const worker_settings& what);
result<worker_settings> worker_settings_from(std::string_view line);

// Starts workers that are like `common`, but for the device.
actors::worker_factory start_workers(worker_settings common);

}  // namespace tandem::gateway
