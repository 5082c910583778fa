// Which devices this process owns: names like "cpu:0-1" (a range of cores) or "cuda:0", checked
// against the machine.
#pragma once

#include "runtime/result.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

struct device_spec {
  std::string name;        // "cpu:0-1"
  std::vector<int> cores;  // of a CPU device, one thread each
  std::uint64_t memory_bytes = 0;
  bool operator==(const device_spec&) const = default;
};

// What the machine offers: the cores this process may use and its memory (of its cgroup, when that
// is smaller).
struct machine {
  std::vector<int> cores;
  std::uint64_t memory_bytes = 0;
};
machine this_machine();

// `list` is {"auto"} or names. Refuses what the machine has not, cores named twice, and bad names.
// Memory: `fraction` of the machine's, divided by cores. At most `threads` threads a device; 0: all
// its cores.
result<std::vector<device_spec>> devices_from(const std::vector<std::string>& list, int threads,
                                              double fraction, const machine& here);

}  // namespace tandem
