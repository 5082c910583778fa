// From a checkpoint's files into a device's arenas.
#pragma once

#include "runtime/pause_point.hpp"
#include "runtime/result.hpp"
#include "runtime/train/checkpoint.hpp"
#include "runtime/train/device_memory.hpp"

#include <cstdint>
#include <filesystem>
#include <vector>

namespace tandem::train {

// Refuses a checkpoint of another layout than this by the first tensor that differs.
result<void> check_layout(const std::filesystem::path& checkpoint, const checkpoint_facts& has,
                          const std::vector<parameter>& wants);

// Fills parameters and the own shard's moments; the number of steps they have seen. Refuses a
// checkpoint of another layout by the first tensor that differs.
result<std::int64_t> resume_from(kernels::backend& device, const std::filesystem::path& checkpoint,
                                 device_memory& memory, const pause_point& pause = no_pause);

}  // namespace tandem::train
