// Descriptions of tables for the copy engine, made by the driver, which is not linked.
#pragma once

#include "kernels/cuda/cuda_device.hpp"
#include "kernels/ensure.hpp"

#include <cudaTypedefs.h>

#include <array>

namespace tandem::kernels::cuda {

// Up to three dimensions, the innermost first; it has no gaps. Strides of the others are bytes,
// multiples of 16.
struct tensor_shape {
  CUtensorMapDataType type = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  std::array<cuuint64_t, 3> sizes{};
  std::array<cuuint64_t, 2> strides{};
  std::array<cuuint32_t, 3> box{};
  cuuint32_t dimensions = 2;
  CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_NONE;
};

inline CUtensorMap tensor_map(const std::byte* data, const tensor_shape& shape) {
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult what{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                           cudaEnableDefault, &what),
          "asking the driver for tensor maps");
    ensure(function != nullptr && what == cudaDriverEntryPointSuccess,
           "a driver that has tensor maps");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  CUtensorMap map{};
  const std::array<cuuint32_t, 3> steps{1, 1, 1};
  const auto made =
      encode(&map, shape.type, shape.dimensions, const_cast<std::byte*>(data), shape.sizes.data(),
             shape.strides.data(), shape.box.data(), steps.data(), CU_TENSOR_MAP_INTERLEAVE_NONE,
             shape.swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  ensure(made == CUDA_SUCCESS, "a table that a tensor map can describe");
  return map;
}

}  // namespace tandem::kernels::cuda
