// Norms, rotary embedding and the store into the KV cache over sixteen lanes.
#pragma once

#include "kernels/cpu/kernel_table.hpp"
#include "kernels/cpu/lanes_math.hpp"

namespace tandem::kernels::cpu {

// Lanes left of a row from column i, at most 16.
template <class L>
TANDEM_INLINE int lanes_left(std::int64_t columns, std::int64_t i) {
  return columns - i < 16 ? static_cast<int>(columns - i) : 16;
}

template <class L>
void rms_norm(const float* x, const float* w, float eps, std::int64_t columns, bool add, float* y) {
  // Four sums: one alone would wait four cycles for each addition.
  typename L::floats squares[4] = {L::zero(), L::zero(), L::zero(), L::zero()};
  std::int64_t i = 0;
  for (; i + 64 <= columns; i += 64) {
    TANDEM_UNROLL
    for (int j = 0; j < 4; ++j) {
      const auto v = L::load(x + i + 16 * j);
      squares[j] = L::fma(v, v, squares[j]);
    }
  }
  for (; i < columns; i += 16) {
    const auto v = L::load(x + i, lanes_left<L>(columns, i));
    squares[0] = L::fma(v, v, squares[0]);
  }
  const float sum = L::sum(L::add(L::add(squares[0], squares[1]), L::add(squares[2], squares[3])));
  const auto inverse = L::all(1.0F / L::root(sum / static_cast<float>(columns) + eps));
  for (i = 0; i < columns; i += 16) {
    const int n = lanes_left<L>(columns, i);
    auto normed = L::multiply(L::multiply(L::load(x + i, n), inverse), L::load(w + i, n));
    if (add) normed = L::add(L::load(y + i, n), normed);
    L::store(y + i, normed, n);
  }
}

template <class L>
void turn(const rope_task& task, float* head) {
  const int half = task.rotary_size / 2;
  for (int i = 0; i < half; i += 16) {
    const int n = lanes_left<L>(half, i);
    const auto cosine = L::load(task.cos_sin + i, n);
    const auto sine = L::load(task.cos_sin + half + i, n);
    const auto a = L::load(head + i, n);
    const auto b = L::load(head + half + i, n);
    L::store(head + i, L::subtract(L::multiply(a, cosine), L::multiply(b, sine)), n);
    L::store(head + half + i, L::add(L::multiply(b, cosine), L::multiply(a, sine)), n);
  }
}

template <class L>
void store_key(const rope_task& task, const float* key, std::byte* keys) {
  const int H = task.head_size;
  if (task.format == kv_format::f32) {
    for (int h = 0; h < H; ++h) {
      std::memcpy(keys + (h * kv_block_positions + task.slot) * 4, key + h, 4);
    }
    return;
  }
  for (int h = 0; h < H; h += 16) {
    std::byte halves[32];
    const int n = lanes_left<L>(H, h);
    L::store_half(halves, L::load(key + h, n));
    for (int i = 0; i < n; ++i) {
      std::memcpy(keys + ((h + i) * kv_block_positions + task.slot) * 2, halves + 2 * i, 2);
    }
  }
}

// Also writes the zeros behind a head size that is not a multiple of 16.
template <class L>
void store_value(const rope_task& task, const float* value, std::byte* values) {
  const int H = task.head_size;
  const int stride = (H + 15) / 16 * 16;
  for (int h = 0; h < H; h += 16) {
    const auto v = L::load(value + h, lanes_left<L>(H, h));
    const int at = task.slot * stride + h;
    if (task.format == kv_format::f32) {
      L::store(reinterpret_cast<float*>(values) + at, v);
    } else {
      L::store_half(values + 2 * at, v);
    }
  }
}

template <class L>
void rope_store(const rope_task& task) {
  const int H = task.head_size;
  const int element = task.format == kv_format::f32 ? 4 : 2;
  for (int n = 0; n < task.query_heads; ++n) {
    float* query = task.qkv + n * H;
    if (task.query_norm != nullptr) {
      rms_norm<L>(query, task.query_norm, task.eps, H, false, query);
    }
    turn<L>(task, query);
  }
  for (int g = 0; g < task.key_heads; ++g) {
    float* key = task.qkv + (task.query_heads + g) * H;
    if (task.key_norm != nullptr) rms_norm<L>(key, task.key_norm, task.eps, H, false, key);
    turn<L>(task, key);
    std::byte* head = task.block + g * task.head_bytes;
    store_key<L>(task, key, head);
    store_value<L>(task, key + task.key_heads * H, head + kv_block_positions * H * element);
  }
}

}  // namespace tandem::kernels::cpu
