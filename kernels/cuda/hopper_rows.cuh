// Products of many rows with sixteen-bit weights by Hopper's wgmma.
#pragma once

#include "kernels/cuda/products.cuh"

#include <cuda_runtime_api.h>

namespace tandem::kernels::cuda {

// The product of x, whose weights and outputs `p` names; `room` has prepared_bytes and lies on a
// line of 256. The same bits as few_rows_product and many_rows_product.
void hopper_rows_product(weight_format format, rows_in x, product p, std::byte* room,
                         int multiprocessors, cudaStream_t stream);

}  // namespace tandem::kernels::cuda
