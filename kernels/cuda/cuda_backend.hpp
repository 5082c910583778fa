// The GPU device's backend, and what can be found out about the GPUs of this machine. No CUDA
// header is needed to include this; a build without CUDA has it too, and finds no GPU.
#pragma once

#include "kernels/backend.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace tandem::kernels::cuda {

struct gpu_facts {
  int index = 0;
  std::string name;  // "NVIDIA H200"
  int major = 0;     // compute capability
  int minor = 0;
  int multiprocessors = 0;
  std::uint64_t memory_bytes = 0;
  std::string why_not;  // empty: can be used; else one line with what to do
};

struct gpu_survey {
  std::vector<gpu_facts> gpus;
  std::string driver;   // "13.0"; empty: none
  std::string why_not;  // when there is no GPU: one line with what to do
};

// Looks at the machine, opens no GPU; never fails.
gpu_survey survey();

// Bytes nobody has yet, by the driver's word; opens the GPU. 0 where it cannot be opened.
std::uint64_t free_memory(int gpu);

// Memory of one GPU, zeroed, at a fixed address until it is released. Empty when there is no room.
std::span<std::byte> allocate(int gpu, std::size_t bytes);
void release(int gpu, std::span<std::byte> memory);
// Between the host's memory and a GPU's, on any thread; done on return. What an op that was not
// finished writes may come or not.
void read_memory(int gpu, std::span<const std::byte> device, std::byte* host);
void write_memory(int gpu, std::span<const std::byte> host, std::byte* device);

struct cuda_options {
  int gpu = 0;                  // one that survey() finds usable
  std::vector<int> host_cores;  // for work on the host (for_each); empty: the calling thread alone
};

std::unique_ptr<backend> make_backend(const cuda_options& options);

}  // namespace tandem::kernels::cuda
