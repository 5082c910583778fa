// A build that found no CUDA toolkit, or was told to do without.
#include "kernels/cuda/cuda_backend.hpp"
#include "kernels/cuda/nccl.hpp"
#include "kernels/cuda/neighbours.hpp"
#include "kernels/ensure.hpp"

namespace tandem::kernels::cuda {

gpu_survey survey() {
  return {
      {},
      {},
      "this build has no CUDA kernels: build with -DTANDEM_CUDA=on where the CUDA toolkit is, or "
      "go on with the CPU"};
}

gpu_neighbours look_around() {
  const finding none{{}, "this build has no CUDA kernels"};
  return {{{}, nccl_survey().why_not}, none, none, none};
}

std::uint64_t free_memory(int) { return 0; }
std::span<std::byte> allocate(int, std::size_t) { return {}; }
void release(int, std::span<std::byte>) {}
void read_memory(int, std::span<const std::byte>, std::byte*) {}
void write_memory(int, std::span<const std::byte>, std::byte*) {}

std::unique_ptr<backend> make_backend(const cuda_options&) {
  ensure(false, "a GPU's backend where the survey found no GPU");
  return nullptr;
}

}  // namespace tandem::kernels::cuda
