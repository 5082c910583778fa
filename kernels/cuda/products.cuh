// What the kernels of products share: what a product is, how its sums are ordered, and what is done
// with a finished one.
//
// The order, the same in every kernel: the groups of a tile fall into at most eight chunks, by the
// number of groups alone. A chunk is one chain over its columns that starts from zero, the chunks'
// sums are added in their order. So a kernel for few rows may give each chunk to a warp of its own,
// one for many takes them one after the other, and a row's bits are the same.
#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/weights.cuh"

namespace tandem::kernels::cuda {

// Activations as the weights want them, [group of 32 or 64 columns][row][64 bytes] with rows
// rounded up to 8 and zeros behind columns and rows:
//   sixteen bits and fp8: 32 columns, rounded to the weights' type, of fp8 to bf16;
//   int8: 64 columns: of each quarter t columns 8t..8t+7 of the first block of 32, then of the
//   second; `scales` has for each block and row the scale, and the bits of what the format adds:
//   q8_0 nothing, q4_0 -8 * sum as int, q4_1 scale * sum as float.
struct prepared_rows {
  const std::byte* data;
  const float2* scales;
  std::int32_t rows;  // rounded up
};

// One product, or one for each expert: then `experts` has their weights, expert e's rows are list
// positions [first[e], first[e + 1]), and position i takes the row x_row[i] of x (i itself when
// null) and gives row i of y.
struct product {
  const std::byte* weights;
  const std::byte* const* experts;
  const std::int32_t* first;
  const std::int32_t* x_row;
  std::int64_t tile_stride;  // bytes
  std::int32_t groups;       // of a tile
  std::int32_t chunk;        // groups
  std::int32_t outputs;      // of y: half the matrix's rows when gated
  std::int32_t rows;         // without experts
  // Rows as they came (f32 weights, and few rows of sixteen-bit and fp8 ones) or prepared.
  const float* x;
  std::int64_t x_stride;
  std::int32_t columns;
  // Of few rows of sixteen-bit weights: rows are normed first, rms_norm(x) * norm. Null: not.
  const float* norm;
  float norm_eps;
  bool x_aligned;  // 16 bytes may be loaded from column 4 i of every row, and columns are whole 4
  prepared_rows prepared;
  float* y;
  std::int64_t y_stride;
  const float* bias;
  bool add;
  bool gated;
  activation act;
};

// Columns of a chunk are whole groups, and whole 32 where groups are smaller.
__host__ __device__ constexpr std::int32_t chunk_groups(weight_format format, std::int64_t groups) {
  const std::int64_t whole = format == weight_format::f32 ? 32 : 1;
  const std::int64_t chunks = (groups + 8 * whole - 1) / (8 * whole);
  return static_cast<std::int32_t>(chunks * whole);
}

// Rows of one block's expert, or all of them.
struct product_rows {
  const std::byte* weights;
  std::int32_t first;
  std::int32_t count;
};
__device__ inline product_rows rows_of_product(const product& p, unsigned expert) {
  if (p.experts == nullptr) return {p.weights, 0, p.rows};
  const std::int32_t first = p.first[expert];
  return {p.experts[expert], first, p.first[expert + 1] - first};
}
__device__ inline std::int32_t x_row_of(const product& p, std::int32_t position) {
  return p.x_row == nullptr ? position : p.x_row[position];
}

__device__ inline void put_output(const product& p, std::int32_t row, std::int32_t output,
                                  float sum) {
  if (output >= p.outputs) return;
  float* const to = p.y + row * p.y_stride + output;
  if (p.bias != nullptr) sum = __fadd_rn(sum, p.bias[output]);
  *to = p.add ? __fadd_rn(*to, sum) : sum;
}
__device__ inline void put_gated(const product& p, std::int32_t row, std::int32_t output,
                                 float gate, float up) {
  if (output >= p.outputs) return;
  p.y[row * p.y_stride + output] = __fmul_rn(activated(gate, p.act), up);
}

// Products by format, launched on a stream. `expert_count` is 1 without experts; `most_rows` bounds
// the rows of one expert.
void few_rows_product(weight_format format, const product& p, int expert_count, int most_rows,
                      cudaStream_t stream);
void many_rows_product(weight_format format, const product& p, int expert_count, int most_rows,
                       int multiprocessors, cudaStream_t stream);
void few_rows_float_product(const product& p, int expert_count, int most_rows, cudaStream_t stream);
void many_rows_float_product(const product& p, int expert_count, int most_rows,
                             cudaStream_t stream);

// Up to so many rows are normed by each block of a product: one launch less is worth that.
constexpr int most_normed_rows = 4;

// Up to so many rows go through the kernels for few.
constexpr int few_rows_of(weight_format format) {
  if (format == weight_format::f32) return 8;
  if (format == weight_format::fp8) return 32;
  return has_blocks(format) ? 16 : 64;
}

// Prepares rows of x for a format that wants it; `room` has prepared_bytes.
constexpr std::int64_t prepared_row_count(std::int64_t rows) { return (rows + 15) / 16 * 16; }
constexpr std::int64_t prepared_columns(std::int64_t columns) {
  return (columns + 127) / 128 * 128;
}
constexpr std::int64_t prepared_data_bytes(weight_format format, std::int64_t rows,
                                           std::int64_t columns) {
  return prepared_row_count(rows) * prepared_columns(columns) * (has_blocks(format) ? 1 : 2);
}
// The larger of what any format needs: two bytes a column, or one and eight for 32.
constexpr std::int64_t prepared_bytes(std::int64_t rows, std::int64_t columns) {
  return prepared_row_count(rows) * prepared_columns(columns) * 2;
}
prepared_rows prepare_rows(weight_format format, rows_in x, std::byte* room, cudaStream_t stream);

// The product of `w` with nothing said yet about its rows, x and y.
product product_of(const packed_matrix& w);

}  // namespace tandem::kernels::cuda
