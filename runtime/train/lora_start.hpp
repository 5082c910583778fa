// Where LoRA training begins, and what of an adapter's arena never learns.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/model/adapter.hpp"
#include "runtime/train/trainer.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace tandem::train {

// A uniform over +-1/sqrt(inputs), as PyTorch's kaiming_uniform(a = sqrt(5)) and so peft begin; B
// zero. Each number is a function of seed, module name and index alone.
void start_adapter(kernels::backend& device, model::adapter& adapter, std::uint64_t seed);

// The packed matrices of an adapter as parameters, by what peft calls their modules.
std::vector<parameter> layout_of_adapter(const kernels::backend& device,
                                         const model::model_config& config,
                                         const model::adapter_layout& layout);

// Off-diagonal and padding places of an adapter's arena: their gradients are not zero by
// themselves and must not move them.
struct zero_run {
  std::size_t first = 0;  // floats
  std::size_t count = 0;
  bool operator==(const zero_run&) const = default;
};
// Runs of one length that lie equally far apart: panels of one matrix. A device is told of them at
// once.
struct zero_block {
  std::size_t first = 0;  // floats
  std::size_t count = 0;
  std::size_t stride = 0;
  std::size_t runs = 1;
  bool operator==(const zero_block&) const = default;
};
std::vector<zero_block> blocks_of(std::span<const zero_run> runs);
// `scratch` is an arena of the adapter's size; left zeroed.
std::vector<zero_block> structural_zeros(kernels::backend& device,
                                         const model::model_config& config,
                                         const model::adapter_layout& layout,
                                         std::span<std::byte> scratch);

}  // namespace tandem::train
