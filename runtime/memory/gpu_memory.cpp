#include "kernels/cuda/cuda_backend.hpp"
#include "runtime/memory/memory_source.hpp"

#include <fmt/format.h>

namespace tandem::memory {
namespace {

class gpu_pages final : public memory_source {
 public:
  explicit gpu_pages(int gpu) : gpu_(gpu) {}
  std::span<std::byte> map(std::size_t bytes, std::string& why) override {
    const auto memory = kernels::cuda::allocate(gpu_, bytes);
    if (memory.empty())
      why = fmt::format("GPU {} has {} bytes free; see `nvidia-smi` for who else is on it", gpu_,
                        kernels::cuda::free_memory(gpu_));
    return memory;
  }
  void unmap(std::span<std::byte> memory) override { kernels::cuda::release(gpu_, memory); }
  bool host() const override { return false; }
  void read(std::span<const std::byte> memory, std::byte* host) override {
    kernels::cuda::read_memory(gpu_, memory, host);
  }
  void write(std::span<const std::byte> host, std::byte* memory) override {
    kernels::cuda::write_memory(gpu_, host, memory);
  }

 private:
  int gpu_;
};

}  // namespace

std::shared_ptr<memory_source> gpu_memory(int gpu) { return std::make_shared<gpu_pages>(gpu); }

}  // namespace tandem::memory
