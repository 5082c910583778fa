// NCCL's functions, out of a library that is opened while the program runs.
#pragma once

#include "kernels/cuda/nccl.hpp"

#include <nccl.h>

#include <span>
#include <string>

namespace tandem::kernels::cuda {

struct nccl_functions {
  decltype(&ncclGetVersion) get_version = nullptr;
  decltype(&ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&ncclCommInitRankConfig) init_rank = nullptr;
  decltype(&ncclCommGetAsyncError) async_error = nullptr;
  decltype(&ncclCommFinalize) finalize = nullptr;
  decltype(&ncclCommDestroy) destroy = nullptr;
  decltype(&ncclCommAbort) abort = nullptr;
  decltype(&ncclGetErrorString) error_text = nullptr;
  decltype(&ncclGetLastError) last_error = nullptr;
  decltype(&ncclGroupStart) group_start = nullptr;
  decltype(&ncclGroupEnd) group_end = nullptr;
  decltype(&ncclAllGather) all_gather = nullptr;
  decltype(&ncclBroadcast) broadcast = nullptr;
};

struct nccl_library {
  nccl_functions call;  // all there when facts.why_not is empty
  nccl_facts facts;
};

// The first of these names that can be opened; it stays open.
nccl_library open_nccl(std::span<const char* const> names);

// This process's, opened when it is first asked for.
const nccl_library& nccl();

}  // namespace tandem::kernels::cuda
