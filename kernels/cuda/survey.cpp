// What GPUs this machine has and whether they can be used.
#include "kernels/cuda/cuda_backend.hpp"

#include <cuda_runtime_api.h>

namespace tandem::kernels::cuda {
namespace {

// The kernels are compiled for these: 8.0 to 8.9 run those of 8.0, 10.x those of 10.0.
bool compiled_for(int major, int minor) {
  return major == 8 || (major == 9 && minor == 0) || major == 10;
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

gpu_facts facts_of(int index) {
  gpu_facts facts;
  facts.index = index;
  cudaDeviceProp properties{};
  if (const auto error = cudaGetDeviceProperties(&properties, index); error != cudaSuccess) {
    facts.why_not = std::string("it does not answer: ") + cudaGetErrorString(error);
    return facts;
  }
  facts.name = properties.name;
  facts.major = properties.major;
  facts.minor = properties.minor;
  facts.multiprocessors = properties.multiProcessorCount;
  facts.memory_bytes = properties.totalGlobalMem;
  if (!compiled_for(facts.major, facts.minor)) {
    facts.why_not = "compute capability " + std::to_string(facts.major) + "." +
                    std::to_string(facts.minor) +
                    " is not among those compiled for (8.x, 9.0, 10.x): use another GPU";
  }
  return facts;
}

gpu_survey look() {
  gpu_survey found;
  int driver = 0;
  int runtime = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) {
    found.why_not = "there is no NVIDIA driver: install one that speaks CUDA " +
                    version_text(runtime) + ", or go on with the CPU";
    return found;
  }
  found.driver = version_text(driver);
  int count = 0;  // left as it is by an error
  const auto error = cudaGetDeviceCount(&count);
  if (error == cudaErrorInsufficientDriver || driver / 1000 < runtime / 1000) {
    found.why_not = "the NVIDIA driver speaks CUDA " + found.driver + ", this build wants " +
                    version_text(runtime) + ": install a newer driver";
    return found;
  }
  if (error != cudaSuccess) {
    cudaGetLastError();
    found.why_not = std::string("the driver does not show a GPU: ") + cudaGetErrorString(error);
    return found;
  }
  if (count == 0) found.why_not = "the NVIDIA driver is there and shows no GPU";
  for (int index = 0; index < count; ++index) found.gpus.push_back(facts_of(index));
  return found;
}

}  // namespace

gpu_survey survey() { return look(); }

std::uint64_t free_memory(int gpu) {
  std::size_t free = 0;
  std::size_t total = 0;
  if (cudaSetDevice(gpu) != cudaSuccess || cudaMemGetInfo(&free, &total) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return free;
}

std::span<std::byte> allocate(int gpu, std::size_t bytes) {
  void* room = nullptr;
  if (cudaSetDevice(gpu) != cudaSuccess || cudaMalloc(&room, bytes) != cudaSuccess) {
    cudaGetLastError();
    return {};
  }
  // The legacy stream waits for nobody's non-blocking stream: zeros must be there on return.
  if (cudaMemset(room, 0, bytes) != cudaSuccess || cudaDeviceSynchronize() != cudaSuccess) {
    cudaGetLastError();
    cudaFree(room);
    return {};
  }
  return {static_cast<std::byte*>(room), bytes};
}

void release(int gpu, std::span<std::byte> memory) {
  if (cudaSetDevice(gpu) == cudaSuccess) cudaFree(memory.data());
}

}  // namespace tandem::kernels::cuda
