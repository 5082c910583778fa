// `tandem up`: the whole platform of this machine in one process, in the foreground.
#pragma once

#include "runtime/settings.hpp"

namespace tandem::gateway {

struct platform_options {
  settings configuration;
  bool quiet = false;  // no lines but the one that says ready
};

// Runs until SIGTERM or SIGINT has been drained; the exit status.
int run_platform(const platform_options& options);

}  // namespace tandem::gateway
