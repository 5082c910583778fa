// A published version out of a training checkpoint's folder, into a device's memory: how versions
// come back after a restart.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/memory/ledger.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/pause_point.hpp"
#include "runtime/result.hpp"
#include "runtime/serve/device.hpp"

#include <cstdint>
#include <memory>
#include <string>

namespace tandem::serve {

// An adapter over `base`, or whole weights in the job's serve_format made from the checkpoint's
// float32 parameters; these are in memory too while that lasts. Refuses checkpoints of other
// models.
result<variant> read_version(kernels::backend& device, const std::shared_ptr<memory::ledger>& book,
                             const model::weights& base, const std::string& checkpoint,
                             std::uint64_t version, const pause_point& pause = no_pause);

}  // namespace tandem::serve
