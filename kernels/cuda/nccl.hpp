// Ranks on GPUs that hold one model together, over NCCL: it moves numbers, and our own kernels add
// them. The library is looked for when it is first wanted; nothing links it. No header of it is
// needed to include this; a build without it has these functions too, and finds none.
#pragma once

#include "kernels/collective.hpp"

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace tandem::kernels::cuda {

struct nccl_facts {
  std::string version;  // "2.28.9"; empty: none that can be used
  std::string path;     // of the library that was found
  std::string why_not;  // one line with what to do
};

// Looks for the library, once; never fails.
nccl_facts nccl_survey();

// Device memory that a rank takes for numbers under way. NCCL takes some of its own beside it: some
// hundred MiB, known only once the ranks have met.
inline constexpr std::size_t nccl_room_bytes = std::size_t{16} << 20;

// What ranks of several processes have in common: made by one, told to all.
using nccl_id = std::array<char, 128>;
struct new_nccl_id {
  nccl_id id{};
  std::string why_not;  // empty: made
};
new_nccl_id make_nccl_id();

struct nccl_rank {
  std::unique_ptr<collective> rank;
  std::string why_not;
};
// Rank `rank` of `size`: waits until all have come, for two minutes at most, and meets them once in
// each operation, so that connections are there. `device` is a GPU's, on which no other rank is
// (NCCL refuses two); it outlives the rank, which goes on the device's thread, and until then no
// other thread may use it. A peer that is lost later ends the process.
nccl_rank join_nccl_ranks(backend& device, const nccl_id& id, int rank, int size);

struct nccl_group {
  std::vector<std::unique_ptr<collective>> ranks;
  std::string why_not;
};
// All ranks of this process: rank r is on devices[r], to be used from its thread.
nccl_group make_nccl_group(std::span<backend* const> devices);

}  // namespace tandem::kernels::cuda
