// Who makes ranks: each on its GPU, in this process or in several.
#include "kernels/cuda/nccl.hpp"

#include "kernels/cuda/cuda_device.hpp"
#include "kernels/cuda/nccl_collective.hpp"
#include "kernels/ensure.hpp"
#include "kernels/rank_sum.hpp"

#include <cstring>
#include <set>
#include <thread>
#include <utility>

namespace tandem::kernels::cuda {
namespace {

cuda_device& gpu_of(backend& device) {
  auto* const gpu = dynamic_cast<cuda_device*>(&device);
  ensure(gpu != nullptr, "ranks of NCCL are on GPUs");
  return *gpu;
}

}  // namespace

new_nccl_id make_nccl_id() {
  const auto& library = nccl();
  if (!library.facts.why_not.empty()) return {{}, library.facts.why_not};
  new_nccl_id made;
  ncclUniqueId id{};
  if (const auto result = library.call.get_unique_id(&id); result != ncclSuccess) {
    made.why_not = std::string("NCCL makes no group: ") + library.call.error_text(result);
    return made;
  }
  std::memcpy(made.id.data(), &id, sizeof id);
  return made;
}

nccl_rank join_nccl_ranks(backend& device, const nccl_id& id, int rank, int size) {
  ensure(size <= most_ranks, "no more ranks than can be");
  const auto& library = nccl();
  if (!library.facts.why_not.empty()) return {nullptr, library.facts.why_not};
  auto& gpu = gpu_of(device);
  check(cudaSetDevice(gpu.gpu()), "taking the GPU");
  auto moves = moves_on(gpu, nccl_room_bytes);
  if (moves == nullptr)
    return {nullptr, "cuda:" + std::to_string(gpu.gpu()) + " has no " +
                         std::to_string(nccl_room_bytes >> 20) + " MiB left for NCCL"};
  std::string why_not;
  auto group = nccl_communicator::join(library.call, id, rank, size, why_not);
  if (group == nullptr) return {nullptr, why_not};
  auto made =
      std::make_unique<nccl_collective>(device, std::move(moves), std::move(group), gpu.stream());
  made->meet();
  return {std::move(made), {}};
}

nccl_group make_nccl_group(std::span<backend* const> devices) {
  ensure(!devices.empty(), "a group of no ranks");
  std::set<int> gpus;
  for (backend* const device : devices) {
    const int gpu = gpu_of(*device).gpu();
    if (!gpus.insert(gpu).second)
      return {
          {},
          "two ranks on cuda:" + std::to_string(gpu) + ", which NCCL refuses: name each GPU once"};
  }
  const auto made = make_nccl_id();
  if (!made.why_not.empty()) return {{}, made.why_not};
  const auto size = static_cast<int>(devices.size());
  std::vector<nccl_rank> ranks(devices.size());
  {
    std::vector<std::jthread> threads;
    for (int r = 0; r < size; ++r)
      threads.emplace_back([&, r] {
        const auto i = static_cast<std::size_t>(r);
        ranks[i] = join_nccl_ranks(*devices[i], made.id, r, size);
      });
  }
  nccl_group group;
  for (auto& one : ranks) {
    if (group.why_not.empty()) group.why_not = one.why_not;
    group.ranks.push_back(std::move(one.rank));
  }
  if (!group.why_not.empty()) group.ranks.clear();
  return group;
}

}  // namespace tandem::kernels::cuda
