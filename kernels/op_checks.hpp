// What each op of backend.hpp wants of its arguments. Every backend asks before it computes, and
// asks nothing else of shapes: so what an op takes is the same on every device, and is tested
// without any. Pure functions of what the host knows; what lies in a device's memory is not looked
// at.
//
// A refusal is a mistake of ours, never of a user: it ends the process with one line that names the
// op, what was wrong, and both numbers.
#pragma once

#include "kernels/backend.hpp"

#include <string>

namespace tandem::kernels {

// The first thing that is wrong; none when `op` is null.
struct refusal {
  enum class relation : std::uint8_t { equal, at_least, at_most, multiple_of };

  const char* op = nullptr;
  const char* what = nullptr;
  std::int64_t found = 0;
  relation must_be = relation::equal;
  std::int64_t wanted = 0;

  explicit operator bool() const { return op != nullptr; }
};

// "linear: columns of x: 32, must be 64"
std::string to_string(const refusal& why);

// Ends the process with to_string(why) on its standard error.
[[noreturn]] void end_with(const refusal& why);
inline void require(const refusal& why) {
  if (why) [[unlikely]]
    end_with(why);
}

namespace checks {

// --- memory and weights
refusal bind_workspace(std::size_t memory, std::size_t wanted);
refusal copy_rows(rows_in from_TX, rows_in to_TX);
refusal pack(const packed_matrix& target, std::int64_t first_row, const row_source& source);
refusal pack_gated(const packed_matrix& target, const row_source& gate, const row_source& up);
refusal repack(const packed_matrix& f32, std::int64_t first_row, std::int64_t rows,
               const packed_matrix& target);
refusal unpack_row(const packed_matrix& source, std::int64_t row);
refusal unpack_gated_row(const packed_matrix& source, std::int64_t row);
refusal rows_of(const packed_matrix& whole, std::int64_t first_row, std::int64_t rows);
refusal gated_as_linear(const packed_matrix& w_FD);

// --- forward. `largest_head`: values of a head that the device's kernels, or its limits, have
// room for. `block_bytes`: of the device's kv_block_bytes.
refusal embed(const packed_matrix& table_VD, std::span<const std::int32_t> ids_T, rows_in x_TD);
refusal rms_norm(rows_in x_TD, rows_in y_TD);
refusal add_rms_norm(rows_in h_TD, rows_in x_TD);
refusal linear(const step_limits& limits, rows_in x_TX, const packed_matrix& w_YX, rows_in y_TY);
refusal linear_gated(const step_limits& limits, rows_in x_TD, const packed_matrix& w_FD,
                     rows_in y_TF);
refusal rope_store(rows_in qkv_TX, std::span<const attention_span> spans,
                   const attention_shape& shape, const rope_step& rope, const kv_cache& cache,
                   std::size_t block_bytes, int largest_head);
refusal attention(rows_in qkv_TX, std::span<const attention_span> spans,
                  const attention_shape& shape, const kv_cache& cache, std::size_t block_bytes,
                  int largest_head, rows_in out_TX);
refusal moe_route(rows_in logits_TE, const moe_routes& routes);
refusal moe(const step_limits& limits, rows_in h_TD, const moe_routes& routes,
            std::span<const expert_matrices> experts, rows_in x_TD);
refusal gather_rows(rows_in x_TD, std::span<const std::int32_t> rows, rows_in y_BD);
refusal draw(rows_in logits_BV, std::span<const draw_rule> how_B,
             std::span<const std::int32_t> ids_B);

// --- training
refusal linear_backward_input(const step_limits& limits, rows_in dy_TY, const packed_matrix& w_YX,
                              rows_in dx_TX);
refusal linear_backward_weights(const step_limits& limits, rows_in dy_TY, rows_in x_TX,
                                std::span<const row_segment> slots, const packed_matrix& dw_YX);
refusal bias_backward(const step_limits& limits, rows_in dy_TY, std::span<const row_segment> slots);
refusal activate_gated(rows_in gate_up_T2F, rows_in y_TF);
refusal activate_gated_backward(rows_in dy_TF, rows_in gate_up_T2F);
refusal rms_norm_backward(const step_limits& limits, rows_in dy_TD, rows_in x_TD,
                          std::span<const row_segment> slots, rows_in dx_TD);
refusal rope(rows_in qkv_TX, int query_heads, int key_heads, int head_size, const rope_step& rope,
             rows_in out_TX);
// `normed`: head norms are given, so rope's input is read.
refusal rope_backward(const step_limits& limits, rows_in qkv_TX, int query_heads, int key_heads,
                      int head_size, const rope_step& rope, bool normed,
                      std::span<const row_segment> slots, rows_in d_TX);
refusal packed_attention(const step_limits& limits, rows_in qkv_TX,
                         std::span<const packed_span> spans, const attention_shape& shape,
                         int key_heads, int head_size, int largest_head, rows_in out_TX);
refusal packed_attention_backward(const step_limits& limits, rows_in dout_TX, rows_in qkv_TX,
                                  rows_in out_TX, std::span<const packed_span> spans,
                                  const attention_shape& shape, int key_heads, int head_size,
                                  int largest_head, rows_in dqkv_TX);
refusal cross_entropy_observe(rows_in logits_BC, std::int32_t first_id,
                              std::span<const cross_entropy_row> rows_B);
refusal cross_entropy_backward(rows_in logits_BC, std::int32_t first_id,
                               std::span<const cross_entropy_row> rows_B,
                               std::span<const float> scale_B);
refusal scatter_add_rows(rows_in y_BD, std::span<const std::int32_t> rows, rows_in x_TD);
refusal embed_backward(rows_in dx_TD, std::span<const std::int32_t> ids_T,
                       const packed_matrix& dtable_VD);
refusal moe_route_backward(rows_in logits_TE, const moe_routes& routes, rows_in dlogits_TE);
refusal moe_backward(const step_limits& limits, rows_in dy_TD, rows_in h_TD,
                     const moe_routes& routes, std::span<const expert_matrices> experts,
                     std::span<const row_segment> slots, std::span<const expert_matrices> dexperts,
                     rows_in dh_TD);
refusal add_rows(rows_in y_TX, rows_in x_TX);
refusal sums_of_squares(std::span<const std::span<const float>> arrays,
                        std::span<const double> sums);
refusal adamw(const adamw_step& how, std::int64_t count);

}  // namespace checks
}  // namespace tandem::kernels
