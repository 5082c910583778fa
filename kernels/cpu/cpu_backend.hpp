// The CPU device's backend: one team of pinned threads and the fastest instruction set found.
#pragma once

#include "kernels/backend.hpp"

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

namespace tandem::kernels::cpu {

// Slowest and plainest first. `reference` is the readable one that the others must match.
enum class instruction_set : std::uint8_t { reference, avx2, avx512, avx512_vnni };

std::string_view name_of(instruction_set set);
std::optional<instruction_set> instruction_set_from(std::string_view name);

// What this machine and its operating system can run; never below `reference`.
instruction_set best_instruction_set();
std::vector<instruction_set> supported_instruction_sets();

struct cpu_options {
  std::vector<int> cores;  // one thread each, pinned; empty: one unpinned thread
  instruction_set set = best_instruction_set();
};

std::unique_ptr<backend> make_backend(const cpu_options& options);

}  // namespace tandem::kernels::cpu
