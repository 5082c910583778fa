// The CPU backend's class; its ops live in cpu_weights.cpp, cpu_products.cpp, cpu_rows.cpp,
// cpu_attention.cpp and, those of training, cpu_training_*.cpp. An op splits its work over the team
// and calls the variant's inner kernels.
#pragma once

#include "kernels/cpu/cpu_backend.hpp"
#include "kernels/cpu/kernel_table.hpp"
#include "kernels/cpu/thread_team.hpp"

#include <string>
#include <vector>

namespace tandem::kernels::cpu {

class cpu_device : public backend {
 public:
  cpu_device(const cpu_options& options, const kernel_table& table);

  std::string_view name() const override { return name_; }
  int thread_count() const override { return team_.size(); }
  void attach_calling_thread() override { team_.attach_calling_thread(); }
  void for_each(std::int64_t count, function_ref<void(std::int64_t)> f) override;

  std::size_t workspace_bytes(const step_limits& limits) const override;
  void bind_workspace(std::span<std::byte> memory, const step_limits& limits) override;
  std::size_t packed_bytes(weight_format format, std::int64_t rows,
                           std::int64_t columns) const override;
  std::size_t kv_block_bytes(const kv_layout& layout) const override;
  bool host_memory() const override { return true; }
  void write(std::span<const std::byte> host, std::byte* device) override;
  void read(std::span<const std::byte> device, std::byte* host) override;
  void copy(std::span<const std::byte> from, std::byte* to) override;
  void copy_rows(rows_in from_TX, rows_out to_TX) override;
  rows_out to_host(rows_out x_TX) override { return x_TX; }
  void finish() override {}
  void keep_up() override {}
  bool begin_program(const program_shape&) override { return false; }
  void end_program() override {}
  void forget_programs() override {}

  bool can_pack(weight_format format, std::int64_t columns) const override;
  void pack(const packed_matrix& target, std::int64_t first_row, const row_source& source) override;
  void pack_gated(const packed_matrix& target, const row_source& gate,
                  const row_source& up) override;
  void repack(const packed_matrix& f32, std::int64_t first_row, std::int64_t rows,
              const packed_matrix& target) override;
  void unpack_row(const packed_matrix& source, std::int64_t row, float* out) const override;

  void embed(const packed_matrix& table_VD, std::span<const std::int32_t> ids_T, float scale,
             rows_out x_TD) override;
  void rms_norm(rows_in x_TD, const float* w_D, float eps, rows_out y_TD) override;
  void add_rms_norm(rows_in h_TD, const float* w_D, float eps, rows_out x_TD) override;
  void linear(rows_in x_TX, const packed_matrix& w_YX, const float* bias_Y, bool add,
              rows_out y_TY) override;
  void linear_gated(rows_in x_TD, const packed_matrix& w_FD, activation act,
                    rows_out y_TF) override;
  void rope_angles(std::span<const std::int32_t> positions_T,
                   std::span<const float> inverse_frequency, float factor,
                   float* cos_sin_TR) override;
  void rope_store(rows_out qkv_TX, std::span<const attention_span> spans,
                  const attention_shape& shape, const rope_step& rope, const float* q_norm_H,
                  const float* k_norm_H, float eps, const kv_cache& cache) override;
  void attention(rows_in qkv_TX, std::span<const attention_span> spans,
                 const attention_shape& shape, const kv_cache& cache, rows_out out_TX) override;
  void moe_route(rows_in logits_TE, bool normalize, const moe_routes& routes) override;
  void moe(rows_in h_TD, const moe_routes& routes, std::span<const expert_matrices> experts,
           activation act, rows_out x_TD) override;
  void gather_rows(rows_in x_TD, std::span<const std::int32_t> rows, rows_out y_BD) override;

  bool draw(rows_in, std::span<const draw_rule>, std::span<std::int32_t>) override { return false; }

  packed_matrix rows_of(const packed_matrix& whole, std::int64_t first_row,
                        std::int64_t rows) const override;
  packed_matrix gated_as_linear(const packed_matrix& w_FD) const override;
  void unpack_gated_row(const packed_matrix& source, bool up, std::int64_t row,
                        float* out) const override;
  void linear_backward_input(rows_in dy_TY, const packed_matrix& w_YX, bool add,
                             rows_out dx_TX) override;
  void linear_backward_weights(rows_in dy_TY, rows_in x_TX, std::span<const row_segment> slots,
                               const packed_matrix& dw_YX) override;
  void bias_backward(rows_in dy_TY, std::span<const row_segment> slots, float* db_Y) override;
  void activate_gated(rows_in gate_up_T2F, activation act, rows_out y_TF) override;
  void activate_gated_backward(rows_in dy_TF, activation act, rows_out gate_up_T2F) override;
  void rms_norm_backward(rows_in dy_TD, rows_in x_TD, const float* w_D, float eps,
                         std::span<const row_segment> slots, bool add, rows_out dx_TD,
                         float* dw_D) override;
  void rope(rows_in qkv_TX, int query_heads, int key_heads, int head_size, const rope_step& rope,
            const float* q_norm_H, const float* k_norm_H, float eps, rows_out out_TX) override;
  void rope_backward(rows_in qkv_TX, int query_heads, int key_heads, int head_size,
                     const rope_step& rope, const float* q_norm_H, const float* k_norm_H, float eps,
                     std::span<const row_segment> slots, rows_out d_TX, float* dq_norm_H,
                     float* dk_norm_H) override;
  void packed_attention(rows_in qkv_TX, std::span<const packed_span> spans,
                        const attention_shape& shape, int key_heads, int head_size, rows_out out_TX,
                        float* lse_TN) override;
  void packed_attention_backward(rows_in dout_TX, rows_in qkv_TX, rows_in out_TX,
                                 const float* lse_TN, std::span<const packed_span> spans,
                                 const attention_shape& shape, int key_heads, int head_size,
                                 rows_out dqkv_TX) override;
  void cross_entropy_observe(rows_in logits_BC, std::int32_t first_id,
                             std::span<cross_entropy_row> rows_B) override;
  void cross_entropy_backward(rows_out logits_BC, std::int32_t first_id,
                              std::span<const cross_entropy_row> rows_B,
                              std::span<const float> scale_B) override;
  void scatter_add_rows(rows_in y_BD, std::span<const std::int32_t> rows, rows_out x_TD) override;
  void embed_backward(rows_in dx_TD, std::span<const std::int32_t> ids_T, float scale,
                      const packed_matrix& dtable_VD) override;
  void moe_route_backward(rows_in logits_TE, bool normalize, const moe_routes& routes,
                          const float* dweights, rows_out dlogits_TE) override;
  void moe_backward(rows_in dy_TD, rows_in h_TD, const moe_routes& routes,
                    std::span<const expert_matrices> experts, activation act,
                    std::span<const row_segment> slots, std::span<const expert_matrices> dexperts,
                    rows_out dh_TD, float* dweights) override;
  void scale_rows(float factor, rows_out x_TX) override;
  void add_rows(rows_in y_TX, rows_out x_TX) override;
  void add_arrays(const float* a, const float* b, std::int64_t count, float* into) override;
  void fill_zero(std::span<std::byte> memory) override;
  double sum_of_squares(const float* x, std::int64_t count) override;
  void adamw(const adamw_step& how, const float* gradient, std::int64_t count, float* w, float* m,
             float* v) override;

 private:
  // Where each part of the workspace starts, in bytes.
  struct workspace_layout {
    std::size_t activations = 0;
    std::size_t expert_inputs = 0;
    std::size_t expert_hidden = 0;
    std::size_t expert_outputs = 0;
    std::size_t attention = 0;
    std::size_t attention_bytes_per_thread = 0;
    std::int64_t score_stride = 0;
    // Of training alone.
    std::size_t panels = 0;
    std::size_t panel_bytes_per_thread = 0;
    std::size_t row_factors = 0;
    std::size_t spans = 0;
    std::size_t span_bytes_per_thread = 0;
    std::size_t head_gradients = 0;
    std::size_t expert_gradients = 0;
    std::size_t expert_gate_up = 0;
    std::size_t expert_hidden_gradients = 0;
    std::size_t total = 0;
  };
  // Rows from `first_row` of a span, and all that one thread does for them.
  struct span_unit {
    packed_span span;
    std::int64_t first_row = 0;  // within the span
    int head = 0;
  };
  workspace_layout layout_of(const step_limits& limits) const;

  // f(thread's part of [0, count)), contiguous; small work stays on the calling thread.
  void for_ranges(std::int64_t count, bool worth_forking,
                  function_ref<void(std::int64_t, std::int64_t)> f);
  // f(row) for each row; a handful of rows is done faster than a fork.
  void for_rows(std::int64_t count, function_ref<void(std::int64_t)> f);
  void run_product(rows_in x, const packed_matrix& w, product_task& task);
  void plan_strips(std::int64_t rows, int tallest);
  float* floats_at(std::size_t offset) const;
  void sum_columns(column_sum_task& task, std::int64_t columns, std::span<const row_segment> slots);
  // f(unit, thread's scratch), whoever is free taking the next of units_.
  void for_units(function_ref<void(const span_unit&, int)> f);
  std::int64_t rows_of_expert(const moe_routes& routes, std::int64_t rows, std::int64_t expert);

  const kernel_table& table_;
  std::string name_;
  thread_team team_;
  step_limits limits_;
  workspace_layout layout_;
  std::span<std::byte> workspace_;
  std::vector<strip> strips_;
  std::vector<std::int32_t> expert_rows_;
  std::vector<row_segment> expert_slots_;
  std::vector<span_unit> units_;
};

// Fewer rows than this are done sooner than another thread is asked.
inline constexpr std::int64_t rows_worth_forking = 5;

// linear_backward_input takes its sum over the outputs in pieces of at most this many.
inline constexpr std::int64_t backward_input_chunk = 640;

// Part `part` of `parts` nearly equal pieces of [0, count).
struct range {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
inline range part_of(std::int64_t count, std::int64_t part, std::int64_t parts) {
  return {count * part / parts, count * (part + 1) / parts};
}

}  // namespace tandem::kernels::cpu
