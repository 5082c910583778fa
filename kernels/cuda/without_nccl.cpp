// A build that found no header of NCCL, or has no CUDA.
#include "kernels/cuda/nccl.hpp"

namespace tandem::kernels::cuda {
namespace {

constexpr const char* none =
    "this build has no NCCL: build where nccl.h and the CUDA toolkit are, or go on with one GPU "
    "for a model";

}  // namespace

nccl_facts nccl_survey() { return {{}, {}, none}; }
new_nccl_id make_nccl_id() { return {{}, none}; }
nccl_rank join_nccl_ranks(backend&, const nccl_id&, int, int) { return {nullptr, none}; }
nccl_group make_nccl_group(std::span<backend* const>) { return {{}, none}; }

}  // namespace tandem::kernels::cuda
