// Whether a test that wants a GPU can run here.
#pragma once

#include "kernels/cuda/cuda_backend.hpp"

#include <catch2/catch.hpp>

namespace tandem::test {

inline bool no_gpu() {
  const auto found = kernels::cuda::survey();
  const auto why = found.gpus.empty() ? found.why_not : found.gpus[0].why_not;
  if (!why.empty()) WARN("no GPU here, not run: " << why);
  return !why.empty();
}

}  // namespace tandem::test
