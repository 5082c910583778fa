// What stands beside the GPUs of this machine: libraries, links among them, and ways from a network
// card into their memory. For people; nothing is decided by it.
#pragma once

#include <string>

namespace tandem::kernels::cuda {

struct finding {
  std::string found;    // in words; empty: nothing that can be used
  std::string why_not;  // then: one line
};

struct gpu_neighbours {
  finding nccl;
  finding cudnn;
  finding nvlink;
  finding rdma;  // GPUDirect
};

// Looks; opens no GPU, and never fails.
gpu_neighbours look_around();

}  // namespace tandem::kernels::cuda
