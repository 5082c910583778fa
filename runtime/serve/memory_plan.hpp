// How a device's memory is divided for serving, decided before anything is allocated.
#pragma once

#include "runtime/result.hpp"

#include <cstdint>

namespace tandem::serve {

struct memory_needs {
  std::uint64_t capacity_bytes = 0;
  std::uint64_t weight_bytes = 0;
  std::uint64_t activation_bytes = 0;
  std::uint64_t kv_block_bytes = 0;   // over all layers
  std::int64_t model_context = 0;     // the model's own limit
  std::int64_t wanted_context = 0;    // 0: the model's own
  std::uint64_t wanted_kv_bytes = 0;  // 0: auto
};

struct memory_plan {
  std::int64_t context_length = 0;
  std::int64_t kv_blocks = 0;
};

// Auto KV: eight sequences of the whole context, at most half of what weights and activations
// leave. A context nobody asked for shrinks to what the KV blocks hold; one that was asked for and
// does not fit is refused with the numbers and the settings to change.
result<memory_plan> plan_memory(const memory_needs& needs);

}  // namespace tandem::serve
