// The contract of arithmetic: every op of a decoder-only model, with its shapes. A backend computes
// on memory that somebody else owns; it allocates nothing after `bind_workspace`.
//
// Pointers (rows, matrices, caches, plain arrays, routes) are the device's memory; spans of ids,
// positions, rows, segments and sequences, and what `pack` reads and `unpack_row` writes, are the
// host's. On a CPU device both are the same. Ops follow one another in the order they are called;
// a device may still be at work when one returns: `to_host`, `read`, `finish` and ops that
// return a number wait. A host span may be changed as soon as the op it was given to returns.
//
// Shape legend: T rows (tokens of one step), D model, N query heads, K key heads, H head size,
// F feed-forward, V vocabulary, E experts, P positions of a KV block. Row-major, float32 unless a
// name says otherwise.
//
// The rule that holds for all of them: a row's result depends on that row alone (and on its own
// sequence's KV), to the bit: not on T, on where the row stands, on the thread count, or on which
// rows stand beside it. So a token's logits do not depend on the batch it was in.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

namespace tandem::kernels {

// How a file stores a row of a matrix. Block formats are ggml's; rows are contiguous. e4m3 is a
// byte a number (kernels/e4m3.hpp); row_source::scales says what they are multiplied by.
enum class source_format : std::uint8_t {
  f32,
  f16,
  bf16,
  q8_0,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q4_k,
  q5_k,
  q6_k,
  e4m3
};

// How a packed matrix is kept in memory. Products over q8_0, q4_0 and q4_1 round the activations
// to int8 with one scale per 32; the others multiply in float32. fp8 is e4m3 numbers with a float32
// scale for each 128 columns of a row, so that what FP8 files hold (a scale for a tensor, for a
// row, for blocks of 128 columns) is kept exactly: a weight is number * scale in float32.
enum class weight_format : std::uint8_t { f32, f16, bf16, fp8, q8_0, q4_0, q4_1 };

enum class kv_format : std::uint8_t { f16, f32 };
enum class activation : std::uint8_t { silu, gelu_tanh };

// Bytes of `columns` consecutive values of one row in a file; 0 when `columns` is not a whole
// number of that format's blocks.
std::size_t source_row_bytes(source_format format, std::int64_t columns);

// The packed format that keeps a file's own precision: the same one where it exists; e4m3 becomes
// fp8, q4_k q4_1 (its sub-block scales rounded to f16), q5_0, q5_1, q5_k and q6_k become q8_0.
weight_format native_format(source_format format);

// What a tensor of e4m3 is multiplied by: its number (r, c) by data[r / rows * stride + c /
// columns], a finite float.
struct scale_grid {
  const float* data = nullptr;
  std::int64_t rows = 1;  // of the tensor, under one scale
  std::int64_t columns = 1;
  std::int64_t stride = 0;     // scales of each run of `rows` rows
  std::int64_t first_row = 0;  // of the tensor: where a row_source begins
};

// Whole rows of a matrix as they lie in a file. `order`, when given, picks the file's rows: row i
// of the target is row order[i] of the file. `scales` belong to e4m3 alone, which has them always.
struct row_source {
  source_format format = source_format::f32;
  const std::byte* data = nullptr;
  std::int64_t rows = 0;
  std::span<const std::int32_t> order = {};
  scale_grid scales = {};
};

// A weight matrix of `rows` outputs by `columns` inputs in the backend's own layout.
// `data` is 64-byte aligned and holds packed_bytes(format, rows, columns). In float32 all backends
// have one layout, so that checkpoints and arenas of training are the same bytes on every device:
// panels of 16 outputs, an even number of them, of each column 16 floats; of pack_gated panels of
// gate and up alternate. What pads rows is zero.
struct packed_matrix {
  weight_format format = weight_format::f32;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::byte* data = nullptr;
};

// A float32 matrix: row r starts at data + r * stride (in floats).
template <class T>
struct basic_rows {
  T* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t stride = 0;

  basic_rows() = default;
  basic_rows(T* d, std::int64_t r, std::int64_t c) : data(d), rows(r), columns(c), stride(c) {}
  basic_rows(T* d, std::int64_t r, std::int64_t c, std::int64_t s)
      : data(d), rows(r), columns(c), stride(s) {}
  template <class U>
  requires(std::is_same_v<const U, T>) basic_rows(const basic_rows<U>& o)
      : data(o.data), rows(o.rows), columns(o.columns), stride(o.stride) {}
  constexpr T* row(std::int64_t r) const { return data + r * stride; }
};
using rows_out = basic_rows<float>;
using rows_in = basic_rows<const float>;

// Positions of one KV block.
inline constexpr int kv_block_positions = 16;

// One layer's keys and values. Block b lies at base + b * block_stride; its inner layout is the
// backend's, kv_block_bytes long. Blocks must be zeroed once before first use (unwritten positions
// must be finite).
struct kv_layout {
  int key_heads = 0;
  int head_size = 0;
  kv_format format = kv_format::f16;
};
struct kv_cache {
  kv_layout layout;
  std::byte* base = nullptr;
  std::size_t block_stride = 0;  // bytes
};

// Which rows of a step belong to which sequence. Rows of one sequence are consecutive tokens at
// positions first_position, first_position + 1, ...; `blocks` maps position p to block
// blocks[p / P] and covers all positions up to the sequence's last row.
struct attention_span {
  std::int32_t first_row = 0;
  std::int32_t row_count = 0;
  std::int32_t first_position = 0;
  const std::int32_t* blocks = nullptr;
};

struct attention_shape {
  int query_heads = 0;
  float scale = 1.0F;    // on the scores, usually 1 / sqrt(H)
  int window = 0;        // a row sees the last `window` positions, itself included; 0: all
  float softcap = 0.0F;  // scores become softcap * tanh(score / softcap); 0: off
};

// Rotary embedding in the half-split layout of Su et al. 2021 (arXiv:2104.09864) as Hugging Face
// applies it: pairs (i, i + R/2) of the first R of H values turn by angle_TR[row][i].
// cos_sin holds for each row R/2 cosines, then R/2 sines; see `rope_angles`.
struct rope_step {
  int rotary_size = 0;
  const float* cos_sin = nullptr;
};

// The chosen experts of each row: ids[row * count + j], weights likewise. Filled by moe_route.
struct moe_routes {
  int count = 0;
  std::int32_t* ids = nullptr;
  float* weights = nullptr;
};
struct expert_matrices {
  packed_matrix gate_up_FD;  // packed with pack_gated
  packed_matrix down_DF;
};

// --- training -----------------------------------------------------------------------------------
// A training pass holds the rows of several logical slots side by side. A segment is one slot's
// rows: segments are in order, adjacent, cover all rows, and may be empty.
//
// Gradients of weights follow one rule everywhere ("the slot tree"): within a segment terms are
// added in row order, starting from zero; the segments' sums meet in a balanced binary tree over
// their indices, sum(b, e) = sum(b, (b+e)/2) + sum((b+e)/2, e), an empty segment being zero; the
// tree's sum is then added once to what the gradient held. So the result is the same to the bit
// whether one device has 2^k slots or 2^j devices have an aligned 2^(k-j) each and their sums are
// added by the rest of the tree.
struct row_segment {
  std::int64_t first_row = 0;
  std::int64_t row_count = 0;
};

// Rows of one example inside a packed row: they see each other causally and nobody else. Spans are
// in order, adjacent and cover all rows; the first row of each stands at position 0.
struct packed_span {
  std::int64_t first_row = 0;
  std::int64_t row_count = 0;
};

// What one row's softmax over the vocabulary came to, kept while the vocabulary is visited in
// pieces: maximum and sum of exponentials relative to it so far, the target's logit, the largest
// logit's id (the smaller id of a tie).
struct cross_entropy_row {
  float maximum = 0.0F;  // valid from the first piece on
  float sum = 0.0F;
  float target_logit = 0.0F;
  std::int32_t target = 0;
  std::int32_t best = -1;
};

// AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) as PyTorch computes it: w *= 1 - lr * decay;
// m, v moving averages; w -= lr * (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps).
struct adamw_step {
  float learning_rate = 0.0F;
  float beta1 = 0.9F;
  float beta2 = 0.999F;
  float eps = 1e-8F;
  float weight_decay = 0.0F;    // 0 for vectors
  float gradient_scale = 1.0F;  // what clipping multiplies gradients by
  std::int64_t step = 1;        // counts from 1
};

// The largest sizes one step may have; workspace is computed from them once.
struct step_limits {
  std::int64_t rows = 0;
  std::int64_t widest_input = 0;  // largest K of any product: max(D, F, N*H)
  std::int64_t experts = 0;
  std::int64_t experts_per_row = 0;
  std::int64_t expert_hidden = 0;
  std::int64_t context_positions = 0;
  int query_heads = 0;
  int head_size = 0;
  // Also room for the training ops; a span of packed_attention is at most context_positions long
  // (any number of rows where that is 0).
  bool training = false;
  // Products of training, forward with float32 weights and backward, may round what they multiply
  // to bfloat16 where the device gains by it; sums stay float32. Then there is room for outputs so
  // wide, and for a matrix of so many numbers (rows and columns in whole 32).
  bool rounded = false;
  std::int64_t widest_output = 0;
  std::int64_t largest_matrix = 0;
};

// Steps that differ in nothing but what host spans hold: equal ones may be run as one program.
struct program_shape {
  const void* weights = nullptr;  // their addresses are part of it
  std::uint64_t version = 0;      // of the weights
  std::int64_t rows = 0;          // one of each sequence
  std::int64_t logit_rows = 0;
  std::int64_t first_logit = 0;  // where its logits go
  std::int64_t positions = 0;    // no row stands at or behind this one
  auto operator<=>(const program_shape&) const = default;
};

// How a token is drawn from one row of logits: of those whose weight exp((x - max) / temperature)
// is at least min_p, the fewest and largest that hold the share top_p (of equal ones the smaller
// ids), the first in order of id where the running sum exceeds u times the whole.
struct draw_rule {
  float temperature = 0.0F;  // 0: the largest, the smaller id of a tie
  float min_p = 0.0F;
  float top_p = 1.0F;
  double u = 0.0;  // in [0, 1)
};

// A reference to a callable, for the length of a call.
template <class Signature>
class function_ref;
template <class R, class... Args>
class function_ref<R(Args...)> {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, function_ref>) function_ref(F&& f)
      : object_(const_cast<void*>(static_cast<const void*>(&f))),
        call_([](void* o, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(o))(std::forward<Args>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

class backend {
 public:
  virtual ~backend() = default;

  // "cpu avx512_vnni": what computes, for people.
  virtual std::string_view name() const = 0;
  virtual int thread_count() const = 0;

  // The calling thread becomes the device's first thread: pinned, float modes set alike. All ops
  // below must come from it.
  virtual void attach_calling_thread() = 0;

  // Runs f(0) ... f(count - 1), each once, spread over the device's threads; returns when all are
  // done. For row-wise host work such as sampling.
  virtual void for_each(std::int64_t count, function_ref<void(std::int64_t)> f) = 0;

  // --- memory ---------------------------------------------------------------------------------
  virtual std::size_t workspace_bytes(const step_limits& limits) const = 0;
  virtual void bind_workspace(std::span<std::byte> memory, const step_limits& limits) = 0;
  virtual std::size_t packed_bytes(weight_format format, std::int64_t rows,
                                   std::int64_t columns) const = 0;
  virtual std::size_t kv_block_bytes(const kv_layout& layout) const = 0;

  // Whether the host may touch the device's memory as its own.
  virtual bool host_memory() const = 0;
  virtual void write(std::span<const std::byte> host, std::byte* device) = 0;
  virtual void read(std::span<const std::byte> device, std::byte* host) = 0;
  // Into the device's memory out of any device's of its kind, or the host's; the ranges don't
  // overlap.
  virtual void copy(std::span<const std::byte> from, std::byte* to) = 0;
  // Likewise rows: to = from, of the same shape.
  virtual void copy_rows(rows_in from_TX, rows_out to_TX) = 0;
  // The same rows where the host may read and write them (samplers work in place): these
  // themselves, or a copy that is good until the next call.
  virtual rows_out to_host(rows_out x_TX) = 0;
  // All that was asked for is done.
  virtual void finish() = 0;
  // All that was asked for before the last call of this is done: who calls it after each piece of
  // work is never more than a piece ahead of the device.
  virtual void keep_up() = 0;
  // From here to end_program: the forward ops of a step of this shape, and nothing else. A device
  // that says true remembers them, and runs the next of the same shape with one command; the host
  // then only brings the spans. Such a step is one piece.
  virtual bool begin_program(const program_shape& shape) = 0;
  virtual void end_program() = 0;
  // The memory that programs worked on is about to go.
  virtual void forget_programs() = 0;

  // --- weights, once at load ------------------------------------------------------------------
  // False where a format cannot hold this many columns (block formats want whole blocks of 32).
  virtual bool can_pack(weight_format format, std::int64_t columns) const = 0;
  // Rows [first_row, first_row + source rows) of `target`. Converts between formats: block formats
  // from floats by ggml's own rounding; fp8 from floats to nearest, ties to even, with the scale
  // (largest magnitude of the 128) / 448, and from e4m3 whose scales hold for whole runs of 128
  // columns exactly. What 128 columns hold that is not finite makes all of them NaN in fp8.
  virtual void pack(const packed_matrix& target, std::int64_t first_row,
                    const row_source& source) = 0;
  // Gate and up of a gated feed-forward side by side; target.rows = 2 * F.
  virtual void pack_gated(const packed_matrix& target, const row_source& gate,
                          const row_source& up) = 0;
  // The same rows of a matrix of another format, which lie in this device's memory in float32; both
  // made by `pack`, or seen by gated_as_linear. first_row is a multiple of 16, and so is `rows`
  // unless the matrix ends there.
  virtual void repack(const packed_matrix& f32, std::int64_t first_row, std::int64_t rows,
                      const packed_matrix& target) = 0;
  // One row as float32, from any packed matrix made by `pack`: out has `columns` floats.
  virtual void unpack_row(const packed_matrix& source, std::int64_t row, float* out) const = 0;

  // --- forward --------------------------------------------------------------------------------
  // x_TD[t] = scale * table_VD[ids_T[t]]
  virtual void embed(const packed_matrix& table_VD, std::span<const std::int32_t> ids_T,
                     float scale, rows_out x_TD) = 0;

  // y = x / sqrt(mean(x^2) + eps) * w  (Zhang & Sennrich 2019, arXiv:1910.07467). y may be x.
  virtual void rms_norm(rows_in x_TD, const float* w_D, float eps, rows_out y_TD) = 0;
  // x += rms_norm(h) * w: the post-norms of Gemma.
  virtual void add_rms_norm(rows_in h_TD, const float* w_D, float eps, rows_out x_TD) = 0;

  // y = x w^T + bias, or y += ... when `add`. bias_Y may be null. w.columns == x.columns,
  // w.rows == y.columns.
  virtual void linear(rows_in x_TX, const packed_matrix& w_YX, const float* bias_Y, bool add,
                      rows_out y_TY) = 0;
  // y = act(x gate^T) * (x up^T); w from pack_gated, w.rows == 2 * y.columns.
  virtual void linear_gated(rows_in x_TD, const packed_matrix& w_FD, activation act,
                            rows_out y_TF) = 0;

  // Both of rms_norm(x_TD) * norm_D, to the bit, in one where a device gains by it. h_TD is room
  // for normed rows; what it holds afterwards is not said.
  virtual void norm_linear(rows_in x_TD, const float* norm_D, float eps, const packed_matrix& w_YD,
                           const float* bias_Y, rows_out h_TD, rows_out y_TY) {
    rms_norm(x_TD, norm_D, eps, h_TD);
    linear(h_TD, w_YD, bias_Y, false, y_TY);
  }
  virtual void norm_linear_gated(rows_in x_TD, const float* norm_D, float eps,
                                 const packed_matrix& w_FD, activation act, rows_out h_TD,
                                 rows_out y_TF) {
    rms_norm(x_TD, norm_D, eps, h_TD);
    linear_gated(h_TD, w_FD, act, y_TF);
  }

  // cos_sin_TR[t] = {cos, sin}(positions_T[t] * inverse_frequency[i]) * factor: R/2 cosines, then
  // R/2 sines. Angles in float64.
  virtual void rope_angles(std::span<const std::int32_t> positions_T,
                           std::span<const float> inverse_frequency, float factor,
                           float* cos_sin_TR) = 0;

  // For each row of qkv (N query heads, K key heads, K value heads, each H wide): optional rms_norm
  // of each query and key head (q_norm_H, k_norm_H; null: none), rotary embedding of both, queries
  // back in place, keys and values into the row's KV slot.
  virtual void rope_store(rows_out qkv_TX, std::span<const attention_span> spans,
                          const attention_shape& shape, const rope_step& rope,
                          const float* q_norm_H, const float* k_norm_H, float eps,
                          const kv_cache& cache) = 0;

  // Causal softmax attention of each row's queries (the first N*H columns of qkv) over its
  // sequence's KV up to and including its own position. out_T(NH).
  virtual void attention(rows_in qkv_TX, std::span<const attention_span> spans,
                         const attention_shape& shape, const kv_cache& cache, rows_out out_TX) = 0;

  // softmax over E, the `routes.count` largest (ties to the smaller id), renormalized to sum 1 when
  // `normalize`.
  virtual void moe_route(rows_in logits_TE, bool normalize, const moe_routes& routes) = 0;
  // x[t] += sum_j weight_j * expert_j(h[t]), added in order of expert id.
  virtual void moe(rows_in h_TD, const moe_routes& routes, std::span<const expert_matrices> experts,
                   activation act, rows_out x_TD) = 0;

  // y[i] = x[rows[i]]
  virtual void gather_rows(rows_in x_TD, std::span<const std::int32_t> rows, rows_out y_BD) = 0;

  // ids_B[b] drawn from logits_BV[b] by how_B[b]; -1 where no number of the row is finite, or the
  // largest is infinite: such rows are the host's. NaN counts as minus infinity. False where this
  // is better done by the host: nothing was drawn.
  virtual bool draw(rows_in logits_BV, std::span<const draw_rule> how_B,
                    std::span<std::int32_t> ids_B) = 0;

  // --- training: forward ops that keep what backward needs, and backward
  // -------------------------- A gradient has a `d` in front and the shape of what it is of.
  // Gradients of weights (dw, db) are float32, are added to (slot tree, see row_segment), and for
  // matrices lie in the packed f32 layout of the weight they belong to (pack or pack_gated: a
  // product never looks inside). Gradients of rows are overwritten unless `add`. Null weight
  // gradients are not computed.

  // Rows [first_row, first_row + rows) of a matrix made by `pack`, as a matrix: no copy.
  // first_row is a multiple of 16.
  virtual packed_matrix rows_of(const packed_matrix& whole, std::int64_t first_row,
                                std::int64_t rows) const = 0;
  // How wide a row is when a matrix from pack_gated (2F rows) is used by `linear` as it lies: gate
  // and up alternate in groups of 16, F rounded up to 16. The alias to use it so.
  virtual packed_matrix gated_as_linear(const packed_matrix& w_FD) const = 0;
  // One row of gate (`up` false) or up of a matrix made by pack_gated, as float32.
  virtual void unpack_gated_row(const packed_matrix& source, bool up, std::int64_t row,
                                float* out) const = 0;

  // Nobody changes these rows until another call of this, of none at the latest: a device may keep
  // what its products make of them in between.
  virtual void hold_rows(rows_in) {}

  // dx = dy w (or dx += ...); w in any format, in float32 arithmetic.
  virtual void linear_backward_input(rows_in dy_TY, const packed_matrix& w_YX, bool add,
                                     rows_out dx_TX) = 0;
  // dw += dy^T x, by the slot tree; dw.format is f32.
  virtual void linear_backward_weights(rows_in dy_TY, rows_in x_TX,
                                       std::span<const row_segment> slots,
                                       const packed_matrix& dw_YX) = 0;
  // db += column sums of dy, by the slot tree.
  virtual void bias_backward(rows_in dy_TY, std::span<const row_segment> slots, float* db_Y) = 0;

  // y = act(gate) * up, where gate_up came from `linear` with gated_as_linear.
  virtual void activate_gated(rows_in gate_up_T2F, activation act, rows_out y_TF) = 0;
  // In: gate_up as forward saw it. Out, in place: its gradient. Padding columns become 0.
  virtual void activate_gated_backward(rows_in dy_TF, activation act, rows_out gate_up_T2F) = 0;

  // Of rms_norm; x_TD is its input. dw_D may be null (a frozen norm).
  virtual void rms_norm_backward(rows_in dy_TD, rows_in x_TD, const float* w_D, float eps,
                                 std::span<const row_segment> slots, bool add, rows_out dx_TD,
                                 float* dw_D) = 0;

  // rope_store without a cache: q and k heads of every row normalized (when given) and turned, v
  // copied. `out` may be `qkv`.
  virtual void rope(rows_in qkv_TX, int query_heads, int key_heads, int head_size,
                    const rope_step& rope, const float* q_norm_H, const float* k_norm_H, float eps,
                    rows_out out_TX) = 0;
  // d_TX in: gradient of `rope`'s output; out, in place: of its input. qkv_TX is that input, read
  // only where head norms are given.
  virtual void rope_backward(rows_in qkv_TX, int query_heads, int key_heads, int head_size,
                             const rope_step& rope, const float* q_norm_H, const float* k_norm_H,
                             float eps, std::span<const row_segment> slots, rows_out d_TX,
                             float* dq_norm_H, float* dk_norm_H) = 0;

  // Causal attention inside each span, float32, keys and values read from qkv itself (after
  // `rope`); N, K, H from shape and `key_heads`, `head_size`. lse_TN[t * N + n]: log-sum-exp of the
  // row's scores, kept for backward. softcap must be 0.
  virtual void packed_attention(rows_in qkv_TX, std::span<const packed_span> spans,
                                const attention_shape& shape, int key_heads, int head_size,
                                rows_out out_TX, float* lse_TN) = 0;
  // dqkv is overwritten whole (q, k and v columns).
  virtual void packed_attention_backward(rows_in dout_TX, rows_in qkv_TX, rows_in out_TX,
                                         const float* lse_TN, std::span<const packed_span> spans,
                                         const attention_shape& shape, int key_heads, int head_size,
                                         rows_out dqkv_TX) = 0;

  // Fused head, piece by piece over the vocabulary, so that logits of a batch are never kept.
  // Columns of logits_BC are ids first_id, first_id + 1, ...; pieces come in ascending order, the
  // first with first_id 0.
  virtual void cross_entropy_observe(rows_in logits_BC, std::int32_t first_id,
                                     std::span<cross_entropy_row> rows_B) = 0;
  // In place: scale_B[b] * (softmax(logits) - onehot(target)), once every piece was observed.
  virtual void cross_entropy_backward(rows_out logits_BC, std::int32_t first_id,
                                      std::span<const cross_entropy_row> rows_B,
                                      std::span<const float> scale_B) = 0;

  // x[rows[i]] += y[i], in order of i; rows are distinct.
  virtual void scatter_add_rows(rows_in y_BD, std::span<const std::int32_t> rows,
                                rows_out x_TD) = 0;
  // dtable[ids[t]] += scale * dx[t], one row after the other in order of t; no tree: the sum over
  // all slots of a step is one chain, whoever computes it. dtable.format is f32.
  virtual void embed_backward(rows_in dx_TD, std::span<const std::int32_t> ids_T, float scale,
                              const packed_matrix& dtable_VD) = 0;

  // Of moe_route: dlogits from the gradient of the chosen weights (dweights[row * count + j]).
  virtual void moe_route_backward(rows_in logits_TE, bool normalize, const moe_routes& routes,
                                  const float* dweights, rows_out dlogits_TE) = 0;
  // Of moe. dh_TD is overwritten, dweights like routes.weights; dexperts may be empty (frozen).
  // What lies between is computed again.
  virtual void moe_backward(rows_in dy_TD, rows_in h_TD, const moe_routes& routes,
                            std::span<const expert_matrices> experts, activation act,
                            std::span<const row_segment> slots,
                            std::span<const expert_matrices> dexperts, rows_out dh_TD,
                            float* dweights) = 0;

  // --- plain arrays: gradients and optimizer states of any layout -------------------------------
  virtual void scale_rows(float factor, rows_out x_TX) = 0;
  virtual void add_rows(rows_in y_TX, rows_out x_TX) = 0;  // x += y
  // into = a + b, elementwise; any of them may be the same array.
  virtual void add_arrays(const float* a, const float* b, std::int64_t count, float* into) = 0;
  virtual void fill_zero(std::span<std::byte> memory) = 0;
  // Sum of squares in float64, by fixed pieces of 65,536 added in order: the same on any number of
  // threads. Not finite when any element is not.
  virtual double sum_of_squares(const float* x, std::int64_t count) = 0;
  // The same of each array.
  virtual void sums_of_squares(std::span<const std::span<const float>> arrays,
                               std::span<double> sums) {
    for (std::size_t i = 0; i < arrays.size(); ++i)
      sums[i] = sum_of_squares(arrays[i].data(), std::ssize(arrays[i]));
  }
  virtual void adamw(const adamw_step& how, const float* gradient, std::int64_t count, float* w,
                     float* m, float* v) = 0;
};

}  // namespace tandem::kernels
