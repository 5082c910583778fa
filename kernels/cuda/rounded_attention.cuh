// Attention over packed rows in bfloat16 and its backward, for training that rounds its products:
// queries, keys, values, weights and their gradients are rounded where they are multiplied, softmax
// and sums are float32. Heads of 128 at most.
#pragma once

#include "kernels/cuda/rounded_products.cuh"
#include "kernels/cuda/training_attention.cuh"

namespace tandem::kernels::cuda {

struct rounded_attention {
  rounded_rows qkv;
  rounded_rows dout;  // backward
  float* out;         // forward
  std::int64_t out_stride;
  float* lse;          // [row][query head]
  const float* along;  // backward: dout.out of a row and query head
  float* dqkv;
  std::int64_t dqkv_stride;
  const span_tile* tiles;  // of attention_rows
  std::int32_t tile_count;
  int query_heads;
  int key_heads;
  int head_size;
  int window;
  float scale;
};
inline constexpr int attention_rows = 64;  // of a tile
constexpr bool attends_rounded(int head_size) { return head_size <= 128; }

void attend(const rounded_attention& how, cudaStream_t stream);
// The gradients of queries, tiles ordered by the work before them; of keys and values, behind them.
void attend_backward_queries(const rounded_attention& how, cudaStream_t stream);
void attend_backward_keys(const rounded_attention& how, cudaStream_t stream);

}  // namespace tandem::kernels::cuda
