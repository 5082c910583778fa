// Reading and writing the row formats of model files (ggml's block formats and plain floats).
#pragma once

#include "kernels/backend.hpp"

namespace tandem::kernels::cpu {

// `columns` values of one row as float32, e4m3 without its scales. `columns` is a whole number of
// the format's blocks.
void decode_row(source_format format, const std::byte* row, std::int64_t columns, float* out);

// The source format whose rows look like a packed format's before packing.
source_format source_of(weight_format format);

// Float32 to that format by ggml's own rounding, so that a file quantized by either is the same.
// Not to fp8, which is no format of a file's row alone: row_encoder does that.
void encode_row(weight_format format, const float* values, std::int64_t columns, std::byte* row);

// q4_k to q4_1 without touching the quants: each sub-block's scale and minimum rounded to f16.
void split_q4_k_row(const std::byte* row, std::int64_t columns, std::byte* q4_1_row);

}  // namespace tandem::kernels::cpu
