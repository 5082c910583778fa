// bench_kernels [--json] [--quick] [--threads N]: each kernel of every instruction set this machine
// has, as a share of what the machine can do, measured in the same run.
#include "kernels/cpu/measure.hpp"

#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace {

using tandem::kernels::cpu::kernel_measurement;

void print_line(const kernel_measurement& m) {
  std::printf(
      "%-12s %-14s %4lld x %5lld -> %5lld  %9.1f us  %7.1f Gop/s  %6.1f GB/s  %3.0f%% of %s\n",
      m.instruction_set.c_str(), m.kernel.c_str(), static_cast<long long>(m.rows),
      static_cast<long long>(m.inputs), static_cast<long long>(m.outputs), m.microseconds,
      m.giga_operations_per_second, m.gigabytes_per_second, 100.0 * m.share_of_limit,
      m.limit.c_str());
}

void print_json(const kernel_measurement& m) {
  std::printf(
      "{\"instruction_set\":\"%s\",\"kernel\":\"%s\",\"rows\":%lld,\"inputs\":%lld,"
      "\"outputs\":%lld,\"microseconds\":%.3f,\"giga_operations_per_second\":%.3f,"
      "\"gigabytes_per_second\":%.3f,\"share_of_limit\":%.4f,\"limit\":\"%s\"}\n",
      m.instruction_set.c_str(), m.kernel.c_str(), static_cast<long long>(m.rows),
      static_cast<long long>(m.inputs), static_cast<long long>(m.outputs), m.microseconds,
      m.giga_operations_per_second, m.gigabytes_per_second, m.share_of_limit, m.limit.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  using namespace tandem::kernels::cpu;
  bool json = false;
  bool quick = false;
  int threads = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--json") {
      json = true;
    } else if (argument == "--quick") {
      quick = true;
    } else if (argument == "--threads" && i + 1 < argc) {
      threads = std::atoi(argv[++i]);
    } else {
      std::fprintf(stderr, "usage: bench_kernels [--json] [--quick] [--threads N]\n");
      return 2;
    }
  }
  for (const instruction_set set : supported_instruction_sets()) {
    // The plain kernels are there to be right; their speed is nobody's business in a quick run.
    if (quick && set != best_instruction_set()) continue;
    if (set == instruction_set::reference && best_instruction_set() != set) continue;
    cpu_options options;
    options.set = set;
    for (int core = 0; core < threads; ++core) options.cores.push_back(core);
    for (const kernel_measurement& m : measure_kernels(options, quick)) {
      json ? print_json(m) : print_line(m);
    }
    std::fflush(stdout);
  }
  return 0;
}
