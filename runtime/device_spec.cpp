#include "runtime/device_spec.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <set>

#include <sched.h>
#include <unistd.h>

namespace tandem {
namespace {

std::optional<int> number(std::string_view text) {
  int value = 0;
  auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc{} || end != text.data() + text.size() || value < 0) return {};
  return value;
}

std::string cores_text(const std::vector<int>& cores) {
  return cores.empty() ? "none" : fmt::format("{}", fmt::join(cores, ","));
}

result<std::vector<int>> cores_of(std::string_view name) {
  auto bad = [&] {
    return error{errc::bad_request,
                 fmt::format("'{}' names no device: write \"auto\", \"cpu:FIRST-LAST\" (a range of "
                             "cores) or \"cpu:CORE\"",
                             name),
                 "devices.list"};
  };
  if (name.starts_with("cuda:"))
    return error{errc::unsupported,
                 fmt::format("device {}: this build has no CUDA backend; use \"auto\" or cpu:… "
                             "devices",
                             name),
                 "devices.list"};
  if (!name.starts_with("cpu:")) return bad();
  auto range = name.substr(4);
  auto dash = range.find('-');
  auto first = number(range.substr(0, dash));
  auto last = dash == std::string_view::npos ? first : number(range.substr(dash + 1));
  if (!first || !last || *last < *first || *last > 4095) return bad();
  std::vector<int> cores;
  for (int core = *first; core <= *last; ++core) cores.push_back(core);
  return cores;
}

std::uint64_t cgroup_memory_bytes() {
  std::ifstream file("/sys/fs/cgroup/memory.max");
  std::uint64_t bytes = 0;
  return file >> bytes ? bytes : UINT64_MAX;  // "max" is no number: unlimited
}

}  // namespace

machine this_machine() {
  machine here;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    for (int core = 0; core < CPU_SETSIZE; ++core)
      if (CPU_ISSET(core, &set)) here.cores.push_back(core);
  const auto physical = static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) *
                        static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  here.memory_bytes = std::min(physical, cgroup_memory_bytes());
  return here;
}

result<std::vector<device_spec>> devices_from(const std::vector<std::string>& list, int threads,
                                              double fraction, const machine& here) {
  ensure(!here.cores.empty(), "a machine without cores");
  std::vector<device_spec> devices;
  if (list.empty() || (list.size() == 1 && list.front() == "auto")) {
    auto name = here.cores.size() == 1
                    ? fmt::format("cpu:{}", here.cores.front())
                    : fmt::format("cpu:{}-{}", here.cores.front(), here.cores.back());
    devices.push_back({name, here.cores, 0});
  } else {
    std::set<int> taken;
    for (const auto& name : list) {
      auto cores = cores_of(name);
      if (!cores) return cores.error();
      for (int core : *cores) {
        if (!std::binary_search(here.cores.begin(), here.cores.end(), core))
          return error{errc::bad_request,
                       fmt::format("device {}: this process may not use core {} (it has {})", name,
                                   core, cores_text(here.cores)),
                       "devices.list"};
        if (!taken.insert(core).second)
          return error{
              errc::bad_request,
              fmt::format("device {}: core {} belongs to another device already", name, core),
              "devices.list"};
      }
      devices.push_back({name, *std::move(cores), 0});
    }
  }
  std::size_t cores_in_use = 0;
  for (auto& device : devices) {
    if (threads > 0 && static_cast<std::size_t>(threads) < device.cores.size())
      device.cores.resize(static_cast<std::size_t>(threads));
    cores_in_use += device.cores.size();
  }
  for (auto& device : devices)
    device.memory_bytes = static_cast<std::uint64_t>(
        static_cast<double>(here.memory_bytes) * fraction *
        (static_cast<double>(device.cores.size()) / static_cast<double>(cores_in_use)));
  return devices;
}

}  // namespace tandem
