// The inner kernels of one instruction set: what one thread computes on its share of an op. Every
// variant fills one table; the backend splits the work and calls it.
//
// Files of the fast variants are compiled with wider instructions than the machine may have, so
// they see only plain structs from here: an inline function with linkage used there could be the
// copy that the linker keeps for everyone.
//
// Layouts, equal for all variants:
//   panel   16 outputs of a weight matrix; lane o of every vector belongs to output o, so there is
//           never a sum across lanes. Panels lie one after the other.
//   f32, f16, bf16   for each k: 16 values.
//   fp8     records of 128 k (the last one of what is left), 2112 bytes: 16 float32 scales, then
//   for
//           each k 16 e4m3 numbers. A weight is number * scale in float32: products are those of
//           f32 weights with these values, to the bit.
//   q4_1    record of one block of 32 k, 320 bytes: 4 x 64 quants, 16 f16 d, 16 f16 m. Dword o of
//           quant vector j holds bytes 4j..4j+3 of the block's 16: low nibbles are
//           k = 4j..4j+3, high ones k = 16+4j..16+4j+3.
//   q4_0    record of two blocks, 576 bytes: 2 x 4 x 64 quants as above, 2 x 16 f16 d.
//   q8_0    record of two blocks, 1088 bytes: 2 x 8 x 64 quants + 128, 2 x 16 f16 d. Dword o of
//           vector j holds k = 4j..4j+3.
//   strip   R rows of activations. Float products: for each k, R floats. Block products: for each
//           block R x 32 int8, R float scales, R 32-bit words: q4_1 scale * sum as float, q8_0
//           -128 * sum, q4_0 -8 * sum as int.
//   KV block, for each key head: keys [H][16] (lane = position), values [16][H rounded up to 16].
#pragma once

#include "kernels/backend.hpp"
#include "kernels/cpu/training_kernels.hpp"

#include <cstddef>
#include <cstdint>

namespace tandem::kernels::cpu {

inline constexpr int block_columns = 32;
inline constexpr std::int64_t fp8_record_columns = 128;
inline constexpr std::int64_t fp8_record_bytes = 64 + fp8_record_columns * 16;
inline constexpr std::int64_t q4_1_record_bytes = 320;  // one block
inline constexpr std::int64_t q4_0_record_bytes = 576;  // two blocks
inline constexpr std::int64_t q8_0_record_bytes = 1088;

// Most queries that one call of `attend` takes.
inline constexpr int attention_tile = 12;

struct strip {
  std::int64_t first_row;
  int rows;
};

struct product_task {
  weight_format format;
  const std::byte* weights;
  std::int64_t panel_bytes;
  std::int64_t columns;  // K
  std::int64_t blocks;   // of 32 in a panel, padding included
  const std::byte* activations;
  std::int64_t row_bytes;  // of activations: a strip lies at first_row * row_bytes
  const strip* strips;
  std::int64_t strip_count;
  float* out;
  std::int64_t out_stride;
  std::int64_t out_panel_stride;  // from one panel's outputs to the next one's: 16 in a row
  std::int64_t outputs;           // columns of out; half the matrix's rows when gated
  const float* bias;
  bool add;
  bool gated;  // panels 2i and 2i + 1 are gate and up of outputs 16i...
  activation act;
  // Float products alone: K falls into these pieces, each a chain of its own that starts from zero;
  // the pieces' sums meet in a balanced tree. None: all of K is one chain.
  const row_segment* segments;
  std::int64_t segment_count;
};

struct rope_task {
  float* qkv;
  int query_heads;
  int key_heads;
  int head_size;
  int rotary_size;
  const float* cos_sin;
  const float* query_norm;
  const float* key_norm;
  float eps;
  kv_format format;
  std::byte* block;  // of this layer, key head 0
  std::int64_t head_bytes;
  int slot;  // position within the block
};

// Queries of one sequence that share a key head. Query i sees positions
// [visible_begin[i], visible_end[i]) and all lie in blocks [block_begin, block_end).
struct attention_task {
  int count;
  const float* queries[attention_tile];
  float* out[attention_tile];
  std::int32_t visible_begin[attention_tile];
  std::int32_t visible_end[attention_tile];
  std::int32_t block_begin;
  std::int32_t block_end;
  const std::int32_t* blocks;
  const std::byte* base;  // of this key head in block 0
  std::int64_t block_bytes;
  int head_size;
  kv_format format;
  float scale;
  float softcap;
  float* scores;  // count rows of score_stride floats, 64-byte aligned
  std::int64_t score_stride;
  float* query_columns;  // head_size * attention_tile floats
};

struct kernel_table {
  int block_strip_rows;  // tallest strip of each kind; shorter ones are 8, 4, 2 and 1 rows
  int float_strip_rows;
  void (*quantize_strip)(const float* x, std::int64_t stride, int rows, std::int64_t columns,
                         std::int64_t blocks, weight_format format, std::byte* out);
  void (*interleave_strip)(const float* x, std::int64_t stride, int rows, std::int64_t columns,
                           float* out);
  // Panels [panel_begin, panel_end); pairs of panels when gated.
  void (*product)(const product_task& task, std::int64_t panel_begin, std::int64_t panel_end);
  // y = norm(x) * w, or y += ...
  void (*rms_norm)(const float* x, const float* w, float eps, std::int64_t columns, bool add,
                   float* y);
  void (*rope_store)(const rope_task& task);
  void (*attend)(const attention_task& task);
  const training_kernels* training;
  // Multiplications and additions without memory, for measuring; operations of one round.
  float (*peak_bytes)(std::int64_t rounds);
  float (*peak_floats)(std::int64_t rounds);
  std::int64_t peak_byte_operations;
  std::int64_t peak_float_operations;
};

// The table of a set that this machine supports.
enum class instruction_set : std::uint8_t;
const kernel_table& table_of(instruction_set set);

extern const kernel_table reference_table;
#if defined(__x86_64__)
extern const kernel_table avx2_table;
extern const kernel_table avx512_table;
extern const kernel_table avx512_vnni_table;
#endif

}  // namespace tandem::kernels::cpu
