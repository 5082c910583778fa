// The device itself: its variant, its threads, its workspace.
#include "kernels/cpu/cpu_backend.hpp"

#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/pack.hpp"
#include "kernels/ensure.hpp"
#include "kernels/op_checks.hpp"

#include <algorithm>
#include <atomic>

namespace tandem::kernels::cpu {
namespace {

std::size_t round_up(std::size_t value, std::size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

const kernel_table& table_of(instruction_set set) {
  ensure(set <= best_instruction_set(), "an instruction set this machine does not have");
  switch (set) {
#if defined(__x86_64__)
    case instruction_set::avx2:
      return avx2_table;
    case instruction_set::avx512:
      return avx512_table;
    case instruction_set::avx512_vnni:
      return avx512_vnni_table;
#endif
    default:
      return reference_table;
  }
}

std::unique_ptr<backend> make_backend(const cpu_options& options) {
  return std::make_unique<cpu_device>(options, table_of(options.set));
}

cpu_device::cpu_device(const cpu_options& options, const kernel_table& table)
    : table_(table), name_("cpu " + std::string(name_of(options.set))), team_(options.cores) {}

void cpu_device::for_each(std::int64_t count, function_ref<void(std::int64_t)> f) {
  // One by one rather than by ranges: rows of such work differ much in cost.
  std::atomic<std::int64_t> next{0};
  const auto work = [&](int) {
    for (std::int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) f(i);
  };
  if (count <= 1) return work(0);
  team_.run(work);
}

void cpu_device::for_ranges(std::int64_t count, bool worth_forking,
                            function_ref<void(std::int64_t, std::int64_t)> f) {
  if (!worth_forking || team_.size() == 1) return f(0, count);
  team_.run([&](int thread) {
    const range part = part_of(count, thread, team_.size());
    f(part.begin, part.end);
  });
}

void cpu_device::for_rows(std::int64_t count, function_ref<void(std::int64_t)> f) {
  for_ranges(count, count >= rows_worth_forking, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) f(row);
  });
}

cpu_device::workspace_layout cpu_device::layout_of(const step_limits& limits) const {
  workspace_layout layout;
  const auto take = [&layout](std::int64_t bytes) {
    const std::size_t at = layout.total;
    // 128 bytes between parts: no line is written from both.
    layout.total = round_up(at + static_cast<std::size_t>(bytes), 128) + 128;
    return at;
  };
  // Rows of activations rounded up to whole pairs of blocks; floats are the larger kind.
  const std::int64_t widest = (limits.widest_input + 63) / 64 * 64;
  const std::int64_t row_bytes = widest * std::int64_t{sizeof(float)};
  layout.activations = take(
      limits.training
          ? std::max(row_bytes, backward_input_chunk * std::int64_t{sizeof(float)}) * limits.rows
          : row_bytes * limits.rows);
  if (limits.experts > 0) {
    layout.expert_inputs = take(limits.rows * row_bytes);
    layout.expert_hidden = take(limits.rows * limits.expert_hidden * std::int64_t{sizeof(float)});
    layout.expert_outputs = take(limits.rows * row_bytes);
  }
  const std::int64_t context =
      limits.training && limits.context_positions == 0 ? limits.rows : limits.context_positions;
  layout.score_stride =
      (context + kv_block_positions - 1) / kv_block_positions * kv_block_positions;
  const std::int64_t per_query = layout.score_stride + limits.head_size;
  layout.attention_bytes_per_thread =
      round_up(static_cast<std::size_t>(attention_tile * per_query) * sizeof(float) + 128, 128);
  layout.attention =
      take(static_cast<std::int64_t>(layout.attention_bytes_per_thread) * team_.size());
  if (!limits.training) return layout;

  const auto take_floats = [&](std::int64_t count) {
    return take(count * std::int64_t{sizeof(float)});
  };
  const auto per_thread = [&](std::int64_t floats) {
    return round_up(static_cast<std::size_t>(floats) * sizeof(float) + 128, 128);
  };
  const std::int64_t threads = team_.size();
  layout.panel_bytes_per_thread =
      per_thread(2 * panel_outputs * std::max(limits.rows, backward_input_chunk));
  layout.panels = take(static_cast<std::int64_t>(layout.panel_bytes_per_thread) * threads);
  layout.row_factors = take_floats(limits.rows * std::max(1, 2 * limits.query_heads));
  if (limits.head_size > 0) {
    const std::int64_t longest = std::min(limits.rows, layout.score_stride);
    const std::int64_t wide = (limits.head_size + 15) / 16 * 16;
    layout.span_bytes_per_thread = per_thread(attention_backward_floats(longest, limits.head_size));
    layout.spans = take(static_cast<std::int64_t>(layout.span_bytes_per_thread) * threads);
    layout.head_gradients = take_floats(2 * limits.rows * limits.query_heads * wide);
  }
  if (limits.experts > 0) {
    layout.expert_gradients = take(limits.rows * row_bytes);
    layout.expert_gate_up = take_floats(limits.rows * 2 * (limits.expert_hidden + 15));
    layout.expert_hidden_gradients = take_floats(limits.rows * limits.expert_hidden);
  }
  return layout;
}

std::size_t cpu_device::workspace_bytes(const step_limits& limits) const {
  return layout_of(limits).total + 128;
}

void cpu_device::bind_workspace(std::span<std::byte> memory, const step_limits& limits) {
  require(checks::bind_workspace(memory.size(), workspace_bytes(limits)));
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  workspace_ = memory.subspan(round_up(address, 128) - address);
  limits_ = limits;
  layout_ = layout_of(limits);
  // In training the columns of x make strips too.
  strips_.reserve(static_cast<std::size_t>(
      limits.training ? std::max(limits.rows, limits.widest_input) : limits.rows));
  expert_rows_.reserve(static_cast<std::size_t>(limits.rows));
}

std::size_t cpu_device::packed_bytes(weight_format format, std::int64_t rows,
                                     std::int64_t columns) const {
  const panel_layout layout = panel_layout::of(format, rows, columns);
  return static_cast<std::size_t>(layout.panels * layout.panel_bytes);
}

std::size_t cpu_device::kv_block_bytes(const kv_layout& layout) const {
  const std::size_t keys = static_cast<std::size_t>(layout.head_size) * kv_block_positions;
  const std::size_t values =
      round_up(static_cast<std::size_t>(layout.head_size), 16) * kv_block_positions;
  const std::size_t element = layout.format == kv_format::f32 ? 4 : 2;
  return round_up((keys + values) * element * static_cast<std::size_t>(layout.key_heads), 64);
}

float* cpu_device::floats_at(std::size_t offset) const {
  return reinterpret_cast<float*>(workspace_.data() + offset);
}

}  // namespace tandem::kernels::cpu
