// Several devices that hold one model together are one device: it has one lease, one step at a
// time, and it lives, moves and dies as one. Each rank has its thread, its shard of the weights and
// the keys and values of its own heads, and runs the same pieces of the same plans in step; the
// first one samples. What it says is what one device would say, to the bit (tensor_split.hpp).
//
// Keys and values are not lent. A job that lies here lies nowhere else; its versions are served
// from its checkpoints, which are those of one device.
#pragma once

#include "runtime/serve/device.hpp"

#include <memory>

namespace tandem::serve {

// Of spec.ranks, all of one kind. GPUs meet over NCCL where that is found, others out of each
// other's memory.
std::unique_ptr<device> make_tensor_device(const device_spec& spec);

}  // namespace tandem::serve
