// `tandem bench kernels`: how fast this machine multiplies, as a share of what it can do.
#include "gateway/command/bench.hpp"
#include "kernels/cpu/measure.hpp"
#include "runtime/device_spec.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <ostream>
#include <thread>

namespace tandem::gateway::command {
namespace {

namespace cpu = kernels::cpu;
using text::value;

struct kernel_options {
  bool quick = false;
  int threads = 0;  // 0: all cores
  std::string set;  // empty: the fastest
};

value as_json(const cpu::kernel_measurement& m) {
  return value::object{{"instruction_set", m.instruction_set},
                       {"kernel", m.kernel},
                       {"rows", m.rows},
                       {"inputs", m.inputs},
                       {"outputs", m.outputs},
                       {"microseconds", m.microseconds},
                       {"giga_operations_per_second", m.giga_operations_per_second},
                       {"gigabytes_per_second", m.gigabytes_per_second},
                       {"share_of_limit", m.share_of_limit},
                       {"limit", m.limit}};
}

std::string line_of(const cpu::kernel_measurement& m) {
  return fmt::format(
      "{:<12} {:<14} {:>4} x {:>5} -> {:>5}  {:>9.1f} us  {:>7.1f} Gop/s  {:>6.1f} "
      "GB/s  {:>3.0f}% of {}",
      m.instruction_set, m.kernel, m.rows, m.inputs, m.outputs, m.microseconds,
      m.giga_operations_per_second, m.gigabytes_per_second, 100 * m.share_of_limit, m.limit);
}

result<cpu::cpu_options> options_from(const kernel_options& wanted) {
  cpu::cpu_options options;
  if (!wanted.set.empty()) {
    const auto set = cpu::instruction_set_from(wanted.set);
    const auto here = cpu::supported_instruction_sets();
    if (!set || std::ranges::find(here, *set) == here.end()) {
      std::string names;
      for (const auto one : here)
        names += fmt::format("{}{}", names.empty() ? "" : ", ", cpu::name_of(one));
      return error{errc::unsupported,
                   fmt::format("this machine does not run \"{}\": it runs {}", wanted.set, names),
                   {}};
    }
    options.set = *set;
  }
  options.cores = this_machine().cores;
  const auto threads = static_cast<std::size_t>(wanted.threads);
  if (threads > options.cores.size()) {
    return error{
        errc::unsupported,
        fmt::format("{} threads, but only {} cores may be used", threads, options.cores.size()),
        {}};
  }
  if (threads > 0) options.cores.resize(threads);
  return options;
}

int run_bench_kernels(const invocation& call, const kernel_options& wanted) {
  const auto options = options_from(wanted);
  if (!options) return refuse(call.io, options.error());
  // The measuring thread is pinned; this one stays as it was.
  std::vector<cpu::kernel_measurement> measured;
  std::thread([&] { measured = cpu::measure_kernels(*options, wanted.quick); }).join();
  for (const cpu::kernel_measurement& m : measured) {
    call.io.out << (call.json ? as_json(m).to_json() : line_of(m)) << '\n';
  }
  call.io.out << std::flush;
  return done;
}

}  // namespace

void add_bench_kernels(CLI::App& bench, invocation& call) {
  CLI::App* command =
      add_command(bench, "kernels", "Time each kernel beside the peak that this machine reaches",
                  "tandem bench kernels --quick");
  add_json_option(*command, call);
  auto options = std::make_shared<kernel_options>();
  command->add_flag("--quick", options->quick, "One shape only, about a second");
  command->add_option("--threads", options->threads, "So many cores; all when not given")
      ->check(CLI::Range(1, 1024));
  command->add_option("--instruction-set", options->set,
                      "One of `tandem devices`; else the fastest");
  command->callback([options, &call] { call.status = run_bench_kernels(call, *options); });
}

}  // namespace tandem::gateway::command
