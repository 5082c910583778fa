// `tandem devices`: what this machine has, which of it would be used, and why.
#include "gateway/command/commands.hpp"
#include "gateway/command/print.hpp"
#include "gateway/command/settings_options.hpp"
#include "kernels/cpu/cpu_backend.hpp"
#include "kernels/cuda/neighbours.hpp"
#include "runtime/device_spec.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>
#include <ostream>
#include <utility>

namespace tandem::gateway::command {
namespace {

namespace cpu = kernels::cpu;

struct machine_facts {
  std::string cpu_name;
  machine here;
  std::vector<std::string> instruction_sets;  // slowest first
  std::vector<device_spec> devices;           // what `up` would take
  // What stands beside GPUs, by name.
  std::vector<std::pair<std::string, kernels::cuda::finding>> neighbours;
};

std::string cpu_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

// One line a GPU, or the one that says why there is none.
std::vector<std::string> gpu_lines(const kernels::cuda::gpu_survey& found) {
  if (found.gpus.empty()) return {"no GPU: " + found.why_not};
  std::vector<std::string> lines;
  for (const auto& gpu : found.gpus) {
    auto line =
        fmt::format("cuda:{} {}, compute {}.{}, {} multiprocessors, {}", gpu.index, gpu.name,
                    gpu.major, gpu.minor, gpu.multiprocessors, human_memory(gpu.memory_bytes));
    if (!gpu.why_not.empty()) line += "; not used: " + gpu.why_not;
    lines.push_back(std::move(line));
  }
  return lines;
}

result<machine_facts> look(const settings& configuration) {
  const devices_settings& wanted = configuration.devices;
  machine_facts facts{cpu_name(), this_machine(), {}, {}, {}};
  for (const cpu::instruction_set set : cpu::supported_instruction_sets()) {
    facts.instruction_sets.emplace_back(cpu::name_of(set));
  }
  auto devices =
      devices_from(wanted.list, wanted.threads_per_device, wanted.memory_fraction, facts.here);
  if (devices) devices = grouped(*std::move(devices), configuration.model.tensor_parallel);
  if (!devices) return devices.error();
  facts.devices = std::move(*devices);
  const auto around = kernels::cuda::look_around();
  facts.neighbours = {{"nccl", around.nccl},
                      {"cudnn", around.cudnn},
                      {"nvlink", around.nvlink},
                      {"rdma", around.rdma}};
  return facts;
}

void print_facts(std::ostream& out, const machine_facts& facts, const settings& configuration) {
  out << "cpu     " << facts.cpu_name << "\n"
      << fmt::format("cores   {} may be used: {}\n", facts.here.cores.size(),
                     fmt::join(facts.here.cores, ","))
      << fmt::format("sets    {}; used: {}, the fastest this machine runs\n",
                     fmt::join(facts.instruction_sets, ", "),
                     cpu::name_of(cpu::best_instruction_set()))
      << "memory  " << human_memory(facts.here.memory_bytes) << "\n";
  const auto& found = facts.here.gpus;
  if (!found.driver.empty()) out << "driver  CUDA " << found.driver << "\n";
  for (const auto& line : gpu_lines(found)) out << "gpu     " << line << "\n";
  for (const auto& [name, what] : facts.neighbours)
    out << fmt::format("{:8}{}\n", name, what.why_not.empty() ? what.found : "no: " + what.why_not);
  out << "\n";
  std::vector<std::vector<std::string>> rows = {{"DEVICE", "THREADS", "MEMORY"}};
  for (const device_spec& device : facts.devices) {
    rows.push_back(
        {device.name, std::to_string(device.cores.size()), human_memory(device.memory_bytes)});
  }
  print_table(out, rows);
  const auto origin = configuration.origins.find("devices.list");
  out << fmt::format("\ndevices.list = [{}] ({}), memory_fraction = {}\n",
                     fmt::join(configuration.devices.list, ", "),
                     origin == configuration.origins.end() ? "default" : origin->second,
                     configuration.devices.memory_fraction)
      << std::flush;
}

text::value as_json(const machine_facts& facts) {
  using text::value;
  const auto list_of = [](const std::vector<int>& numbers) {
    value::array list;
    for (const int number : numbers) list.emplace_back(number);
    return list;
  };
  value::array sets;
  for (const std::string& set : facts.instruction_sets) sets.emplace_back(set);
  value::array devices;
  for (const device_spec& device : facts.devices) {
    devices.emplace_back(
        value::object{{"name", device.name},
                      {"cores", list_of(device.cores)},
                      {"memory_bytes", static_cast<std::int64_t>(device.memory_bytes)}});
  }
  value::array gpus;
  for (const auto& gpu : facts.here.gpus.gpus) {
    gpus.emplace_back(value::object{{"name", fmt::format("cuda:{}", gpu.index)},
                                    {"model", gpu.name},
                                    {"compute", fmt::format("{}.{}", gpu.major, gpu.minor)},
                                    {"multiprocessors", std::int64_t{gpu.multiprocessors}},
                                    {"memory_bytes", static_cast<std::int64_t>(gpu.memory_bytes)},
                                    {"why_not", gpu.why_not}});
  }
  value::object neighbours;
  for (const auto& [name, what] : facts.neighbours)
    neighbours.emplace_back(name, value::object{{"found", what.found}, {"why_not", what.why_not}});
  return value::object{{"cpu", facts.cpu_name},
                       {"cores", list_of(facts.here.cores)},
                       {"instruction_sets", sets},
                       {"instruction_set", std::string(cpu::name_of(cpu::best_instruction_set()))},
                       {"memory_bytes", static_cast<std::int64_t>(facts.here.memory_bytes)},
                       {"gpu", gpu_lines(facts.here.gpus).front()},
                       {"gpus", gpus},
                       {"beside_gpus", neighbours},
                       {"devices", devices}};
}

int run_devices(const invocation& call, const settings_options& options) {
  const loaded_settings loaded = load(call.io, options);
  if (loaded.status != done) return loaded.status;
  const auto facts = look(loaded.configuration);
  if (!facts) return refuse(call.io, facts.error());
  if (call.json) {
    call.io.out << as_json(*facts).to_json() << std::endl;
  } else {
    print_facts(call.io.out, *facts, loaded.configuration);
  }
  return done;
}

}  // namespace

void add_devices(CLI::App& app, invocation& call) {
  CLI::App* command =
      add_command(app, "devices", "What was found on this machine, and why it is used",
                  "tandem devices --json");
  auto options = add_settings_options(*command);
  add_override(*command, options, "--devices", "devices.list", "Names to try, as for `up`");
  add_override(*command, options, "--tensor-parallel", "model.tensor_parallel",
               "How many devices hold the model together");
  add_json_option(*command, call);
  command->callback([options, &call] { call.status = run_devices(call, *options); });
}

}  // namespace tandem::gateway::command
