// Rotary embedding, the KV cache and attention over it.
#include "kernels/cpu/attention_split.hpp"
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/ensure.hpp"
#include "kernels/op_checks.hpp"

#include <algorithm>
#include <cmath>

namespace tandem::kernels::cpu {
namespace {

struct kv_strides {
  std::int64_t head_bytes;
  std::int64_t block_bytes;

  kv_strides(const backend& device, const kv_cache& cache)
      : head_bytes(static_cast<std::int64_t>(
            device.kv_block_bytes({1, cache.layout.head_size, cache.layout.format}))),
        block_bytes(static_cast<std::int64_t>(cache.block_stride)) {}
};

// Finds the span of each row asked for; rows mostly come one after the other.
class span_cursor {
 public:
  explicit span_cursor(std::span<const attention_span> spans) : spans_(spans) {}

  const attention_span& at(std::int64_t row) {
    for (std::size_t tries = 0; tries < spans_.size(); ++tries) {
      const attention_span& span = spans_[index_];
      if (row >= span.first_row && row < span.first_row + span.row_count) return span;
      index_ = index_ + 1 < spans_.size() ? index_ + 1 : 0;
    }
    ensure(false, "every row belongs to a span");
    return spans_.front();
  }

 private:
  std::span<const attention_span> spans_;
  std::size_t index_ = 0;
};

}  // namespace

void cpu_device::rope_angles(std::span<const std::int32_t> positions_T,
                             std::span<const float> inverse_frequency, float factor,
                             float* cos_sin_TR) {
  const std::int64_t half = std::ssize(inverse_frequency);
  for_rows(std::ssize(positions_T), [&](std::int64_t t) {
    float* cosines = cos_sin_TR + t * 2 * half;
    const double position = positions_T[static_cast<std::size_t>(t)];
    for (std::int64_t i = 0; i < half; ++i) {
      const double angle =
          position * static_cast<double>(inverse_frequency[static_cast<std::size_t>(i)]);
      cosines[i] = static_cast<float>(std::cos(angle) * static_cast<double>(factor));
      cosines[half + i] = static_cast<float>(std::sin(angle) * static_cast<double>(factor));
    }
  });
}

void cpu_device::rope_store(rows_out qkv_TX, std::span<const attention_span> spans,
                            const attention_shape& shape, const rope_step& rope,
                            const float* q_norm_H, const float* k_norm_H, float eps,
                            const kv_cache& cache) {
  const kv_layout& layout = cache.layout;
  require(checks::rope_store(qkv_TX, spans, shape, rope, cache, kv_block_bytes(cache.layout),
                             limits_.head_size));
  const kv_strides strides(*this, cache);
  for_ranges(qkv_TX.rows, qkv_TX.rows >= rows_worth_forking, [&](auto begin, auto end) {
    span_cursor cursor(spans);
    rope_task task{};
    task.query_heads = shape.query_heads;
    task.key_heads = layout.key_heads;
    task.head_size = layout.head_size;
    task.rotary_size = rope.rotary_size;
    task.query_norm = q_norm_H;
    task.key_norm = k_norm_H;
    task.eps = eps;
    task.format = layout.format;
    task.head_bytes = strides.head_bytes;
    for (std::int64_t row = begin; row < end; ++row) {
      const attention_span& span = cursor.at(row);
      const std::int64_t position = span.first_position + (row - span.first_row);
      const std::int32_t block = span.blocks[position / kv_block_positions];
      task.qkv = qkv_TX.row(row);
      task.cos_sin = rope.cos_sin + row * rope.rotary_size;
      task.block = cache.base + block * strides.block_bytes;
      task.slot = static_cast<int>(position % kv_block_positions);
      table_.rope_store(task);
    }
  });
}

void cpu_device::attention(rows_in qkv_TX, std::span<const attention_span> spans,
                           const attention_shape& shape, const kv_cache& cache, rows_out out_TX) {
  const kv_layout& layout = cache.layout;
  const std::int64_t H = layout.head_size;
  require(checks::attention(qkv_TX, spans, shape, cache, kv_block_bytes(cache.layout),
                            limits_.head_size, out_TX));
  const kv_strides strides(*this, cache);
  const attention_split split{spans, layout.key_heads, shape.query_heads / layout.key_heads,
                              shape.window, attention_tile};

  team_.run([&](int thread) {
    float* scores = floats_at(layout_.attention + static_cast<std::size_t>(thread) *
                                                      layout_.attention_bytes_per_thread);
    split.visit(thread, team_.size(), [&](const query_run& run) {
      const attention_span& span = spans[static_cast<std::size_t>(run.span)];
      attention_task task{};
      task.count = run.count;
      std::int32_t first = span.first_position + span.row_count;
      std::int32_t last = 0;
      for (std::int32_t i = 0; i < run.count; ++i) {
        const std::int64_t query = run.first_query + i;
        const std::int64_t row = query / split.queries_per_key_head;
        const std::int64_t head =
            run.key_head * split.queries_per_key_head + query % split.queries_per_key_head;
        task.queries[i] = qkv_TX.row(span.first_row + row) + head * H;
        task.out[i] = out_TX.row(span.first_row + row) + head * H;
        task.visible_end[i] = span.first_position + static_cast<std::int32_t>(row) + 1;
        task.visible_begin[i] =
            shape.window > 0 ? std::max(0, task.visible_end[i] - shape.window) : 0;
        first = std::min(first, task.visible_begin[i]);
        last = std::max(last, task.visible_end[i]);
      }
      task.block_begin = first / kv_block_positions;
      task.block_end = (last + kv_block_positions - 1) / kv_block_positions;
      task.blocks = span.blocks;
      task.base = cache.base + run.key_head * strides.head_bytes;
      task.block_bytes = strides.block_bytes;
      task.head_size = layout.head_size;
      task.format = layout.format;
      task.scale = shape.scale;
      task.softcap = shape.softcap;
      task.scores = scores;
      task.score_stride = layout_.score_stride;
      task.query_columns = scores + attention_tile * layout_.score_stride;
      ensure((task.block_end - task.block_begin) * kv_block_positions <= task.score_stride,
             "a context within the limits");
      table_.attend(task);
    });
  });
}

}  // namespace tandem::kernels::cpu
