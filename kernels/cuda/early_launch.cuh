// Kernels of a decode step take microseconds, and between two of them as long again is lost. One
// that is launched by launch_early may start while the one before it ends: it fetches what does not
// depend on that one (weights), then waits for it. Every thread of such a kernel calls
// wait_for_previous first of all that reads or writes rows; so that one's end tells of all ends
// before it.
#pragma once

#include "kernels/cuda/cuda_device.hpp"

#include <cuda_runtime.h>

namespace tandem::kernels::cuda {

// Hopper and later can; elsewhere kernels start one after the other.
__device__ inline void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

inline bool starts_early() {
  int gpu = 0;
  int major = 0;
  check(cudaGetDevice(&gpu), "asking for the GPU");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, gpu),
        "asking the GPU's kind");
  return major >= 9;
}

// Blocks in clusters, where `cluster` says so.
template <class... Parameters, class... Arguments>
void launch_early(void (*kernel)(Parameters...), dim3 grid, dim3 cluster, unsigned threads,
                  std::size_t shared, cudaStream_t stream, Arguments... arguments) {
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (starts_early()) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster.x * cluster.y * cluster.z > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {cluster.x, cluster.y, cluster.z};
  }
  cudaLaunchConfig_t how{};
  how.gridDim = grid;
  how.blockDim = dim3(threads);
  how.dynamicSmemBytes = shared;
  how.stream = stream;
  how.attrs = attributes;
  how.numAttrs = count;
  check(cudaLaunchKernelEx(&how, kernel, static_cast<Parameters>(arguments)...),
        "launching a kernel", grid.x, threads);
}
template <class... Parameters, class... Arguments>
void launch_early(void (*kernel)(Parameters...), dim3 grid, unsigned threads, std::size_t shared,
                  cudaStream_t stream, Arguments... arguments) {
  launch_early(kernel, grid, dim3(1, 1, 1), threads, shared, stream, arguments...);
}

}  // namespace tandem::kernels::cuda
