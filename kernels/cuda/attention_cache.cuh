// How a KV block lies in the GPU's memory: key head by key head; of each its keys [16][H], then its
// values [16][H], so that a head's part of a block is one piece.
#pragma once

#include "kernels/backend.hpp"
#include "kernels/cuda/cuda_device.hpp"

#include <cuda_fp16.h>

namespace tandem::kernels::cuda {

// Values of a head, at most: shared memory of the kernels has room for so many.
inline constexpr int largest_head = 256;

struct cache_view {
  std::byte* base = nullptr;
  std::int64_t block_stride = 0;  // bytes
  int head_size = 0;

  // Of one block and key head; values are kv_block_positions * head_size behind the keys.
  template <class Value>
  __device__ Value* keys(std::int32_t block, int key_head) const {
    return reinterpret_cast<Value*>(base + block * block_stride) +
           std::int64_t{key_head} * (2 * kv_block_positions * head_size);
  }
};

// Of a cache that the checks of ops let pass.
cache_view view_of(const kv_cache& cache);

}  // namespace tandem::kernels::cuda
