// A library that behaves as NCCL does, over threads of one process and the host's memory, and does
// what a test tells it.
#pragma once

#include <nccl.h>

#include <mutex>
#include <string>
#include <vector>

struct fake_nccl {
  std::mutex mutex;    // of all that follows
  int busy_looks = 2;  // so often a communicator says that it is still at work
  ncclResult_t joins = ncclSuccess;
  ncclResult_t operates = ncclSuccess;
  ncclResult_t found_later = ncclSuccess;  // by whoever looks while nothing is asked for
  std::vector<std::string> calls;          // but for looks

  void forget() {
    const std::lock_guard lock(mutex);
    busy_looks = 2;
    joins = operates = found_later = ncclSuccess;
    calls.clear();
  }
  std::vector<std::string> called() {
    const std::lock_guard lock(mutex);
    return calls;
  }
};

// In the library, as "fake_nccl_here".
using fake_nccl_getter = fake_nccl* (*)();
