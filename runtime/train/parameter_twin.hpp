// The same place in another arena of one layout: where a weight's gradient lies.
#pragma once

#include "kernels/backend.hpp"
#include "kernels/ensure.hpp"

#include <cstddef>

namespace tandem::train {

struct parameter_twin {
  const std::byte* of = nullptr;
  std::byte* at = nullptr;

  kernels::packed_matrix operator()(kernels::packed_matrix matrix) const {
    ensure(matrix.format == kernels::weight_format::f32, "trained matrices are float32");
    if (matrix.data != nullptr) matrix.data = at + (matrix.data - of);
    return matrix;
  }
  float* operator()(const float* vector) const {
    if (vector == nullptr) return nullptr;
    return reinterpret_cast<float*>(at + (reinterpret_cast<const std::byte*>(vector) - of));
  }
};

}  // namespace tandem::train
