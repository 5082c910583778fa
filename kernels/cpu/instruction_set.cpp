// What the processor has and the operating system saves on a switch of threads.
#include "kernels/cpu/cpu_backend.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace tandem::kernels::cpu {
namespace {

constexpr instruction_set all_sets[] = {instruction_set::reference, instruction_set::avx2,
                                        instruction_set::avx512, instruction_set::avx512_vnni};

#if defined(__x86_64__)

struct registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

registers cpuid(unsigned leaf, unsigned subleaf) {
  registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d) == 0) return {};
  return r;
}

// Which register files the system saves (XCR0). Only callable when CPUID says OSXSAVE.
unsigned saved_registers() {
  unsigned low = 0;
  unsigned high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

constexpr bool has_all(unsigned word, unsigned bits) { return (word & bits) == bits; }

instruction_set detect() {
  const registers one = cpuid(1, 0);
  constexpr unsigned fma = 1U << 12, osxsave = 1U << 27, avx = 1U << 28, f16c = 1U << 29;
  if (!has_all(one.c, fma | osxsave | avx | f16c)) return instruction_set::reference;
  const unsigned saved = saved_registers();
  const registers seven = cpuid(7, 0);
  constexpr unsigned ymm_state = 0x6, zmm_state = 0xE6;
  constexpr unsigned avx2 = 1U << 5;
  if (!has_all(saved, ymm_state) || !has_all(seven.b, avx2)) return instruction_set::reference;
  constexpr unsigned f = 1U << 16, dq = 1U << 17, bw = 1U << 30, vl = 1U << 31;
  if (!has_all(saved, zmm_state) || !has_all(seven.b, f | dq | bw | vl)) {
    return instruction_set::avx2;
  }
  constexpr unsigned vnni = 1U << 11;
  return has_all(seven.c, vnni) ? instruction_set::avx512_vnni : instruction_set::avx512;
}

#else

instruction_set detect() { return instruction_set::reference; }

#endif

}  // namespace

std::string_view name_of(instruction_set set) {
  switch (set) {
    case instruction_set::reference:
      return "reference";
    case instruction_set::avx2:
      return "avx2";
    case instruction_set::avx512:
      return "avx512";
    case instruction_set::avx512_vnni:
      return "avx512_vnni";
  }
  return "unknown";
}

std::optional<instruction_set> instruction_set_from(std::string_view name) {
  for (const instruction_set set : all_sets) {
    if (name_of(set) == name) return set;
  }
  return std::nullopt;
}

instruction_set best_instruction_set() {
  static const instruction_set best = detect();
  return best;
}

std::vector<instruction_set> supported_instruction_sets() {
  std::vector<instruction_set> supported;
  for (const instruction_set set : all_sets) {
    if (set <= best_instruction_set()) supported.push_back(set);
  }
  return supported;
}

}  // namespace tandem::kernels::cpu
