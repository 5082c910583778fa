// Which devices this process owns: names like "cpu:0-1" (a range of cores) or "cuda:0", checked
// against the machine. Several that hold a model together are one device: "cuda:0+cuda:1".
#pragma once

#include "kernels/cuda/cuda_backend.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

struct device_spec {
  std::string name;        // "cpu:0-1"
  std::vector<int> cores;  // one thread each; of a GPU: those that do its work on the host
  int gpu = -1;            // its index; of a CPU device -1
  std::uint64_t memory_bytes = 0;
  // Of a group: each rank's device, in order. Then cores and memory are all of theirs, and gpu is
  // the first one's.
  std::vector<device_spec> ranks = {};
  bool operator==(const device_spec&) const = default;
};

// What the machine offers: the cores this process may use, its memory (of its cgroup, when that is
// smaller) and its GPUs.
struct machine {
  std::vector<int> cores;
  std::uint64_t memory_bytes = 0;
  kernels::cuda::gpu_survey gpus = {};
};
machine this_machine();

// `list` is {"auto"} or names; auto: each GPU that can be used, or all cores where there is none.
// Refuses what the machine has not, cores or GPUs named twice, and bad names. Memory: `fraction` of
// the GPU's; of the machine's, divided by cores, for CPU devices. At most `threads` threads a
// device; 0: all its cores.
result<std::vector<device_spec>> devices_from(const std::vector<std::string>& list, int threads,
                                              double fraction, const machine& here);

// `ranks` at a time, in their order, are one device. Refuses what does not divide, and groups of
// cores and GPUs.
result<std::vector<device_spec>> grouped(std::vector<device_spec> devices, int ranks);

}  // namespace tandem
