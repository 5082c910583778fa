#include "runtime/device_spec.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

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

error bad_name(std::string_view name) {
  return error{errc::bad_request,
               fmt::format("'{}' names no device: write \"auto\", \"cpu:FIRST-LAST\" (a range of "
                           "cores), \"cpu:CORE\" or \"cuda:INDEX\" (a GPU)",
                           name),
               "devices.list"};
}

result<std::vector<int>> cores_of(std::string_view name) {
  if (!name.starts_with("cpu:")) return bad_name(name);
  auto range = name.substr(4);
  auto dash = range.find('-');
  auto first = number(range.substr(0, dash));
  auto last = dash == std::string_view::npos ? first : number(range.substr(dash + 1));
  if (!first || !last || *last < *first || *last > 4095) return bad_name(name);
  std::vector<int> cores;
  for (int core = *first; core <= *last; ++core) cores.push_back(core);
  return cores;
}

result<device_spec> gpu_of(std::string_view name, const kernels::cuda::gpu_survey& here) {
  const auto index = number(name.substr(5));
  if (!index) return bad_name(name);
  const auto refuse = [&](std::string_view why) {
    return error{errc::bad_request, fmt::format("device {}: {}", name, why), "devices.list"};
  };
  if (here.gpus.empty()) return refuse(here.why_not);
  for (const auto& gpu : here.gpus) {
    if (gpu.index != *index) continue;
    if (!gpu.why_not.empty()) return refuse(fmt::format("{}: {}", gpu.name, gpu.why_not));
    return device_spec{std::string(name), {}, gpu.index, gpu.memory_bytes};
  }
  return refuse(fmt::format("this machine has {} GPU{}, numbered from 0", here.gpus.size(),
                            here.gpus.size() == 1 ? "" : "s"));
}

std::uint64_t cgroup_memory_bytes() {
  std::ifstream file("/sys/fs/cgroup/memory.max");
  std::uint64_t bytes = 0;
  return file >> bytes ? bytes : UINT64_MAX;  // "max" is no number: unlimited
}

// Work on the host beside a GPU (sampling, packing of weights) wants a few cores, of those that no
// CPU device has.
void give_host_cores(std::vector<device_spec>& devices, const std::set<int>& taken,
                     const machine& here) {
  constexpr std::size_t most = 8;
  std::vector<device_spec*> gpus;
  for (auto& device : devices)
    if (device.gpu >= 0) gpus.push_back(&device);
  std::size_t next = 0;
  for (const int core : here.cores) {
    if (gpus.empty()) return;
    if (taken.contains(core)) continue;
    auto& cores = gpus[next++ % gpus.size()]->cores;
    if (cores.size() < most) cores.push_back(core);
  }
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
  here.gpus = kernels::cuda::survey();
  return here;
}

result<std::vector<device_spec>> devices_from(const std::vector<std::string>& list, int threads,
                                              double fraction, const machine& here) {
  ensure(!here.cores.empty(), "a machine without cores");
  std::vector<device_spec> devices;
  std::set<int> taken;
  if (list.empty() || (list.size() == 1 && list.front() == "auto")) {
    for (const auto& gpu : here.gpus.gpus)
      if (gpu.why_not.empty())
        devices.push_back({fmt::format("cuda:{}", gpu.index), {}, gpu.index, gpu.memory_bytes});
    if (devices.empty()) {
      auto name = here.cores.size() == 1
                      ? fmt::format("cpu:{}", here.cores.front())
                      : fmt::format("cpu:{}-{}", here.cores.front(), here.cores.back());
      devices.push_back({name, here.cores});
    }
  } else {
    std::set<int> taken_gpus;
    for (const auto& name : list) {
      if (name.starts_with("cuda:")) {
        auto gpu = gpu_of(name, here.gpus);
        if (!gpu) return gpu.error();
        if (!taken_gpus.insert(gpu->gpu).second)
          return error{errc::bad_request, fmt::format("device {} is named twice", name),
                       "devices.list"};
        devices.push_back(*std::move(gpu));
        continue;
      }
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
      devices.push_back({name, *std::move(cores)});
    }
  }
  give_host_cores(devices, taken, here);
  std::size_t cores_in_use = 0;
  for (auto& device : devices) {
    if (threads > 0 && static_cast<std::size_t>(threads) < device.cores.size())
      device.cores.resize(static_cast<std::size_t>(threads));
    if (device.gpu < 0) cores_in_use += device.cores.size();
  }
  for (auto& device : devices) {
    const auto whole =
        static_cast<double>(device.gpu < 0 ? here.memory_bytes : device.memory_bytes);
    const double share = device.gpu < 0 ? static_cast<double>(device.cores.size()) /
                                              static_cast<double>(cores_in_use)
                                        : 1.0;
    device.memory_bytes = static_cast<std::uint64_t>(whole * fraction * share);
  }
  return devices;
}

result<std::vector<device_spec>> grouped(std::vector<device_spec> devices, int ranks) {
  ensure(ranks > 0, "groups of no devices");
  if (ranks == 1) return devices;
  std::vector<std::string> names;
  for (const auto& device : devices) names.push_back(device.name);
  const auto refuse = [&](std::string_view why) {
    return error{errc::bad_request,
                 fmt::format("model.tensor_parallel is {}, the devices are {} ({}): {}", ranks,
                             devices.size(), fmt::join(names, ", "), why),
                 "model.tensor_parallel"};
  };
  const auto each = static_cast<std::size_t>(ranks);
  if (devices.size() % each != 0)
    return refuse(
        fmt::format("name a multiple of {} in devices.list (\"auto\" is one device of all "
                    "cores where there is no GPU)",
                    ranks));
  std::vector<device_spec> groups;
  for (std::size_t first = 0; first < devices.size(); first += each) {
    device_spec group;
    for (std::size_t i = first; i < first + each; ++i) {
      auto& rank = devices[i];
      if ((rank.gpu < 0) != (devices[first].gpu < 0))
        return refuse("a group has GPUs alone, or cores alone");
      group.name += (i == first ? "" : "+") + rank.name;
      group.cores.insert(group.cores.end(), rank.cores.begin(), rank.cores.end());
      group.memory_bytes += rank.memory_bytes;
      group.ranks.push_back(std::move(rank));
    }
    group.gpu = group.ranks.front().gpu;
    groups.push_back(std::move(group));
  }
  return groups;
}

}  // namespace tandem
