#include "runtime/serve/memory_plan.hpp"

#include "kernels/backend.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::serve {
namespace {

constexpr std::uint64_t auto_contexts = 8;
constexpr std::int64_t smallest_context = 64;

std::uint64_t mib(std::uint64_t bytes) { return (bytes + (1U << 20) - 1) >> 20; }

}  // namespace

result<memory_plan> plan_memory(const memory_needs& needs) {
  ensure(needs.kv_block_bytes > 0 && needs.model_context > 0, "a model without KV or context");
  const auto positions = std::int64_t{kernels::kv_block_positions};
  if (needs.wanted_context > needs.model_context)
    return error{errc::bad_request,
                 fmt::format("context_length {} is more than the model's own {}",
                             needs.wanted_context, needs.model_context),
                 "model.context_length"};
  const auto fixed = needs.weight_bytes + needs.activation_bytes;
  if (fixed >= needs.capacity_bytes)
    return error{
        errc::no_memory,
        fmt::format("weights take {} MiB and a step {} MiB, but the device may use {} MiB; "
                    "raise devices.memory_fraction or choose a smaller model.format",
                    mib(needs.weight_bytes), mib(needs.activation_bytes),
                    mib(needs.capacity_bytes)),
        "devices.memory_fraction"};
  const auto left = needs.capacity_bytes - fixed;
  const auto context = needs.wanted_context > 0 ? needs.wanted_context : needs.model_context;
  const auto context_blocks = static_cast<std::uint64_t>((context + positions - 1) / positions);
  auto kv_bytes = needs.wanted_kv_bytes;
  if (kv_bytes == 0) {
    const auto one = context_blocks * needs.kv_block_bytes;
    kv_bytes = std::min(std::max(left / 2, std::min(one, left)), auto_contexts * one);
  } else if (kv_bytes > left) {
    return error{
        errc::no_memory,
        fmt::format("kv_memory {} MiB does not fit: weights {} MiB and a step {} MiB leave "
                    "{} of {} MiB; lower model.kv_memory or raise devices.memory_fraction",
                    mib(kv_bytes), mib(needs.weight_bytes), mib(needs.activation_bytes), left >> 20,
                    mib(needs.capacity_bytes)),
        "model.kv_memory"};
  }
  memory_plan plan;
  plan.kv_blocks = static_cast<std::int64_t>(kv_bytes / needs.kv_block_bytes);
  plan.context_length = std::min(context, plan.kv_blocks * positions);
  if (needs.wanted_context > plan.context_length || plan.context_length < smallest_context)
    if (plan.context_length < context)
      return error{errc::no_memory,
                   fmt::format("one sequence of {} tokens needs {} MiB of KV blocks, there is room "
                               "for {} tokens in {} MiB; lower model.context_length or raise "
                               "model.kv_memory",
                               context, mib(context_blocks * needs.kv_block_bytes),
                               plan.context_length, mib(kv_bytes)),
                   "model.context_length"};
  return plan;
}

}  // namespace tandem::serve
