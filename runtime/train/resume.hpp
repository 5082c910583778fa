// From a checkpoint's files into a device's arenas.
#pragma once

#include "runtime/pause_point.hpp"
#include "runtime/result.hpp"
#include "runtime/train/device_memory.hpp"

#include <cstdint>
#include <filesystem>

namespace tandem::train {

// Fills parameters and the own shard's moments; the number of steps they have seen. Refuses a
// checkpoint of another layout by the first tensor that differs.
result<std::int64_t> resume_from(kernels::backend& device, const std::filesystem::path& checkpoint,
                                 device_memory& memory, const pause_point& pause = no_pause);

}  // namespace tandem::train
