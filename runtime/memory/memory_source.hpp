// Where a device's memory comes from: the machine's own pages, or a GPU's memory.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace tandem::memory {

class memory_source {
 public:
  virtual ~memory_source() = default;
  // Zeroed bytes at a fixed address until they are given back; empty where there is no room, with
  // `why` in the system's words. Any thread.
  virtual std::span<std::byte> map(std::size_t bytes, std::string& why) = 0;
  virtual void unmap(std::span<std::byte> memory) = 0;
  // Whether the host may touch it as its own.
  virtual bool host() const = 0;
  // Between this memory and the host's; any thread.
  virtual void read(std::span<const std::byte> memory, std::byte* host) = 0;
  virtual void write(std::span<const std::byte> host, std::byte* memory) = 0;
};

// Anonymous pages, huge ones where the machine has them; taken from it when first touched.
std::shared_ptr<memory_source> host_memory();

// The memory of one GPU, as kernels::cuda::survey() numbers them.
std::shared_ptr<memory_source> gpu_memory(int gpu);

}  // namespace tandem::memory
