// What the binary runs as: the whole platform of this machine, a node of somebody else's, or the
// worker of one device.
#pragma once

#include "runtime/settings.hpp"

#include <string>

namespace tandem::gateway {

struct join_options {
  settings configuration;
  std::string heads;  // cluster addresses that `tandem up` printed, with commas; one of them leads
  std::string name;   // of this node; empty: the host's
};

struct platform_options {
  settings configuration;
  bool quiet = false;  // no lines but the one that says ready
};

// Runs until SIGTERM or SIGINT has been drained; the exit status.
int run_platform(const platform_options& options);
// `tandem join`: lends this machine's devices to a cluster that runs elsewhere, until SIGTERM or
// SIGINT has given them back.
int run_join(const join_options& options);
// `tandem worker`: the process of one device, started by the two above.
int run_worker();

}  // namespace tandem::gateway
