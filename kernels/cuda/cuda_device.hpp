// The CUDA backend's class. Its ops live in weights.cu, products*.cu, rows.cu, training_rows.cu,
// attention.cu, training_attention.cu and experts.cu; what they share is here and in
// device_math.cuh. All work goes to one stream, in the order it is asked for.
#pragma once

#include "kernels/cpu/thread_team.hpp"
#include "kernels/cuda/cuda_backend.hpp"

#include <cuda_runtime_api.h>

#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace tandem::kernels::cuda {

// Ends the process with the operation, its shape and CUDA's own words: after an error nothing on
// the device can be trusted.
[[noreturn]] void fail(cudaError_t error, const char* operation, std::int64_t rows,
                       std::int64_t columns);
inline void check(cudaError_t error, const char* operation, std::int64_t rows = 0,
                  std::int64_t columns = 0) {
  if (error != cudaSuccess) fail(error, operation, rows, columns);
}
// After a launch.
inline void launched(const char* operation, std::int64_t rows = 0, std::int64_t columns = 0) {
  check(cudaGetLastError(), operation, rows, columns);
}

// What the host says to the device: a ring of pinned memory and its twin on the device. A piece
// stays until the ring comes round, which waits for the stream. A program's ring is filled anew for
// each of its runs, by the same uploads in the same order.
class upload_ring {
 public:
  upload_ring(cudaStream_t stream, std::size_t bytes);
  ~upload_ring();
  upload_ring(const upload_ring&) = delete;
  upload_ring& operator=(const upload_ring&) = delete;

  // Copies to the device; the result is good for ops asked for before the ring comes round.
  // `quiet`: only fills the pinned memory, a program's own copy follows.
  template <class T>
  const T* upload(std::span<const T> values, bool quiet = false) {
    return reinterpret_cast<const T*>(upload_bytes(std::as_bytes(values), quiet));
  }
  void rewind() { next_ = 0; }

  // The same in two steps, for what is laid out in place: fill room.host, then send.
  struct room {
    std::byte* host;
    std::byte* device;
    std::size_t bytes;
  };
  room take(std::size_t bytes);
  void send(const room& filled);

 private:
  const std::byte* upload_bytes(std::span<const std::byte> bytes, bool quiet);

  cudaStream_t stream_;
  std::size_t size_;
  std::size_t next_ = 0;
  std::byte* host_ = nullptr;
  std::byte* device_ = nullptr;
};

// Pinned memory that the device may write, as large as it ever had to be.
class pinned_room {
 public:
  pinned_room() = default;
  ~pinned_room() { cudaFreeHost(memory_); }
  pinned_room(const pinned_room&) = delete;
  pinned_room& operator=(const pinned_room&) = delete;

  // What was there is lost when it grows; the device must be done with it.
  std::byte* grown(std::size_t bytes);

 private:
  std::byte* memory_ = nullptr;
  std::size_t size_ = 0;
};

// Spans of a step as kernels read them.
struct device_span {
  std::int32_t first_row;
  std::int32_t row_count;
  std::int32_t first_position;
  std::int32_t first_block;  // of the span, within device_spans::blocks
};
struct device_spans {
  const device_span* spans = nullptr;
  const std::int32_t* blocks = nullptr;
  const std::int32_t* span_of_row = nullptr;  // [rows]
  std::int64_t span_count = 0;
  std::int64_t rows = 0;       // all spans together
  std::int32_t most_rows = 0;  // of one span
  // Of one span, up to and including its last row; a program's bound where there is one.
  std::int32_t most_positions = 0;
};

// The ops of one shape of step as a CUDA graph.
struct cuda_program {
  std::unique_ptr<upload_ring> ring;
  cudaGraphExec_t run = nullptr;
};

struct product;
struct rounded_rows;
struct rounded_matrix;

class cuda_device final : public backend {
 public:
  explicit cuda_device(const cuda_options& options);
  ~cuda_device() override;

  std::string_view name() const override { return name_; }
  int thread_count() const override { return team_.size(); }
  void attach_calling_thread() override;
  void for_each(std::int64_t count, function_ref<void(std::int64_t)> f) override;

  std::size_t workspace_bytes(const step_limits& limits) const override;
  void bind_workspace(std::span<std::byte> memory, const step_limits& limits) override;
  std::size_t packed_bytes(weight_format format, std::int64_t rows,
                           std::int64_t columns) const override;
  std::size_t kv_block_bytes(const kv_layout& layout) const override;
  bool host_memory() const override { return false; }
  void write(std::span<const std::byte> host, std::byte* device) override;
  void read(std::span<const std::byte> device, std::byte* host) override;
  void copy(std::span<const std::byte> from, std::byte* to) override;
  void copy_rows(rows_in from_TX, rows_out to_TX) override;
  rows_out to_host(rows_out x_TX) override;
  void finish() override;
  void keep_up() override;
  bool begin_program(const program_shape& shape) override;
  void end_program() override;
  void forget_programs() override;

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
  void norm_linear(rows_in x_TD, const float* norm_D, float eps, const packed_matrix& w_YD,
                   const float* bias_Y, rows_out h_TD, rows_out y_TY) override;
  void norm_linear_gated(rows_in x_TD, const float* norm_D, float eps, const packed_matrix& w_FD,
                         activation act, rows_out h_TD, rows_out y_TF) override;
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

  bool draw(rows_in logits_BV, std::span<const draw_rule> how_B,
            std::span<std::int32_t> ids_B) override;

  packed_matrix rows_of(const packed_matrix& whole, std::int64_t first_row,
                        std::int64_t rows) const override;
  packed_matrix gated_as_linear(const packed_matrix& w_FD) const override;
  void unpack_gated_row(const packed_matrix& source, bool up, std::int64_t row,
                        float* out) const override;
  void hold_rows(rows_in x_TX) override;
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
  void sums_of_squares(std::span<const std::span<const float>> arrays,
                       std::span<double> sums) override;
  void adamw(const adamw_step& how, const float* gradient, std::int64_t count, float* w, float* m,
             float* v) override;

  // For what works on the same stream beside the ops (rank_moves.cu, nccl.cpp).
  int gpu() const { return gpu_; }
  cudaStream_t stream() const { return stream_; }
  // A program that is known is run again: ops bring their spans and launch nothing.
  bool refilling() const { return refilling_; }

 private:
  // The workspace is handed out piece by piece within one op, and is free again when the op returns
  // (the stream keeps ops apart). Rounded up to 256 bytes; the workspace has room (ensure).
  template <class T>
  T* scratch(std::int64_t count) {
    return reinterpret_cast<T*>(scratch_bytes(static_cast<std::size_t>(count) * sizeof(T)));
  }
  std::byte* scratch_bytes(std::size_t bytes);
  void end_scratch() { scratch_used_ = 0; }
  // The same for the workspace's forecast, one function for each file of ops that needs any.
  std::size_t product_workspace(const step_limits& limits) const;
  static std::size_t attention_workspace(const step_limits& limits);
  std::size_t expert_workspace(const step_limits& limits) const;
  static std::size_t row_workspace(const step_limits& limits);

  // Spans of the host for the next op.
  template <class T>
  const T* upload(std::span<const T> values) {
    if (program_ == nullptr) return ring_.upload(values);
    return program_->ring->upload(values, refilling_);
  }

  void run_product(rows_in x, const packed_matrix& w, product& p);
  // Whether wgmma takes such a product of serving.
  bool on_hopper(std::int64_t rows, const packed_matrix& w) const;
  bool norms_rows(const rows_in& x, const float* norm, const packed_matrix& w) const;
  // Whether training's products round, and what they take then: into the workspace.
  bool rounds() const;
  // Of the workspace; null where there is not so much (column_sums.cuh).
  float* column_sum_room(std::int64_t slots, std::int64_t columns);
  rounded_rows as_rounded(rows_in x);
  rounded_matrix as_rounded(const packed_matrix& w);
  rounded_rows as_rounded_rows(const packed_matrix& w);

  // Uploads a step's spans, or finds that the last upload was the same.
  const device_spans& spans_of(std::span<const attention_span> spans);

  std::string name_;
  int gpu_;
  int multiprocessors_ = 0;
  bool wgmma_ = false;
  cpu::thread_team team_;
  cudaStream_t stream_ = nullptr;
  std::array<cudaEvent_t, 2> kept_up_{};  // ends of the last pieces, in turns
  std::size_t pieces_ = 0;
  upload_ring ring_;
  upload_ring spans_ring_;  // its last upload stays good until the next
  step_limits limits_;
  std::span<std::byte> workspace_;
  const std::byte* workspace_owner_ = nullptr;  // where the memory bound begins
  std::size_t scratch_used_ = 0;
  rows_in held_;                    // hold_rows
  std::byte* held_room_ = nullptr;  // at the workspace's end, of training that rounds
  bool held_rounded_ = false;       // it lies there
  std::byte* host_rows_ = nullptr;  // pinned, for to_host and numbers that come back
  std::size_t host_rows_size_ = 0;
  mutable pinned_room fetched_row_;
  device_spans spans_;
  std::vector<std::byte> spans_key_;
  std::vector<std::byte> spans_next_;
  std::map<program_shape, cuda_program> programs_;
  std::map<program_shape, int> shapes_seen_;  // that have none yet
  cuda_program* program_ = nullptr;           // between begin_program and end_program
  std::int64_t program_positions_ = 0;
  bool refilling_ = false;
};

}  // namespace tandem::kernels::cuda
