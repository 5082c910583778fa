// Every op's checks, without any device: what it takes, and each way to be wrong by what it says.
#include "kernels/op_checks.hpp"
#include "tests/kernels/test_device.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <array>
#include <csignal>
#include <cstddef>
#include <limits>

using namespace tandem::kernels;
using namespace tandem::kernels::test;

namespace {

// Nothing is read of it: shapes alone are looked at.
alignas(64) std::array<std::byte, 128> somewhere{};

rows_out rows(std::int64_t count, std::int64_t columns) {
  return {reinterpret_cast<float*>(somewhere.data()), count, columns};
}
packed_matrix matrix(std::int64_t count, std::int64_t columns,
                     weight_format format = weight_format::f32) {
  return {format, count, columns, somewhere.data()};
}
packed_matrix with(packed_matrix w, weight_format format) {
  w.format = format;
  return w;
}
template <class T>
std::vector<T> of(std::initializer_list<T> values) {
  return values;
}
using ids = std::vector<std::int32_t>;
using slots = std::vector<row_segment>;

std::string said(const refusal& why) { return to_string(why); }

}  // namespace

TEST_CASE("a refusal names the op, what is wrong and both numbers") {
  CHECK_FALSE(refusal{});
  CHECK(said({}).empty());
  CHECK(said({"op", "x", 3, refusal::relation::equal, 4}) == "op: x: 3, must be 4");
  CHECK(said({"op", "x", 3, refusal::relation::at_least, 4}) == "op: x: 3, must be at least 4");
  CHECK(said({"op", "x", 3, refusal::relation::at_most, 2}) == "op: x: 3, must be at most 2");
  CHECK(said({"op", "x", 3, refusal::relation::multiple_of, 2}) ==
        "op: x: 3, must be a multiple of 2");
}

TEST_CASE("checks of rows by themselves") {
  using namespace checks;
  CHECK_FALSE(rms_norm(rows(3, 8), rows(3, 8)));
  CHECK(said(rms_norm(rows(3, 8), rows(2, 8))) == "rms_norm: rows of y: 2, must be 3");
  CHECK(said(rms_norm(rows(3, 8), rows(3, 9))) == "rms_norm: columns of y: 9, must be 8");
  CHECK_FALSE(add_rms_norm(rows(3, 8), rows(3, 8)));
  CHECK(said(add_rms_norm(rows(3, 8), rows(4, 8))) == "add_rms_norm: rows of x: 4, must be 3");
  CHECK_FALSE(add_rows(rows(3, 8), rows(3, 8)));
  CHECK(said(add_rows(rows(3, 8), rows(3, 7))) == "add_rows: columns of y: 8, must be 7");
  CHECK_FALSE(copy_rows(rows(3, 8), rows(3, 8)));
  CHECK(said(copy_rows(rows(3, 8), rows(2, 8))) == "copy_rows: rows to: 2, must be 3");

  CHECK_FALSE(gather_rows(rows(5, 8), ids{4, 0}, rows(2, 8)));
  CHECK(said(gather_rows(rows(5, 8), ids{4}, rows(2, 8))) == "gather_rows: indices: 1, must be 2");
  CHECK(said(gather_rows(rows(5, 8), ids{4, 0}, rows(2, 6))) ==
        "gather_rows: columns of y: 6, must be 8");
  CHECK(said(gather_rows(rows(5, 8), ids{0, 5}, rows(2, 8))) ==
        "gather_rows: index: 5, must be at most 4");
  CHECK(said(gather_rows(rows(5, 8), ids{0, -1}, rows(2, 8))) ==
        "gather_rows: index: -1, must be at least 0");
  CHECK_FALSE(scatter_add_rows(rows(2, 8), ids{4, 0}, rows(5, 8)));
  CHECK(said(scatter_add_rows(rows(2, 8), ids{4, 7}, rows(5, 8))) ==
        "scatter_add_rows: index: 7, must be at most 4");
  CHECK(said(scatter_add_rows(rows(2, 8), ids{4}, rows(5, 8))) ==
        "scatter_add_rows: indices: 1, must be 2");
  CHECK(said(scatter_add_rows(rows(2, 7), ids{4, 0}, rows(5, 8))) ==
        "scatter_add_rows: columns of y: 7, must be 8");

  CHECK_FALSE(embed(matrix(10, 8), ids{9, 0}, rows(2, 8)));
  CHECK(said(embed(matrix(10, 8), ids{9}, rows(2, 8))) == "embed: ids: 1, must be 2");
  CHECK(said(embed(matrix(10, 8), ids{9, 0}, rows(2, 4))) == "embed: columns of x: 4, must be 8");
  CHECK(said(embed(matrix(10, 8), ids{9, 10}, rows(2, 8))) == "embed: id: 10, must be at most 9");
  CHECK(said(embed(matrix(10, 8), ids{-2, 1}, rows(2, 8))) == "embed: id: -2, must be at least 0");
  CHECK_FALSE(embed_backward(rows(2, 8), ids{9, 0}, matrix(10, 8)));
  CHECK(said(embed_backward(rows(2, 8), ids{9, 11}, matrix(10, 8))) ==
        "embed_backward: id: 11, must be at most 9");
  CHECK(said(embed_backward(rows(2, 8), ids{9}, matrix(10, 8))) ==
        "embed_backward: ids: 1, must be 2");
  CHECK(said(embed_backward(rows(2, 8), ids{9, 0}, matrix(10, 9))) ==
        "embed_backward: columns of dx: 8, must be 9");
  CHECK(said(embed_backward(rows(2, 8), ids{9, 0}, matrix(10, 8, weight_format::bf16))) ==
        "embed_backward: format of the gradient: 2, must be 0");
}

TEST_CASE("checks of weights") {
  using namespace checks;
  CHECK_FALSE(bind_workspace(100, 100));
  CHECK(said(bind_workspace(99, 100)) == "bind_workspace: bytes: 99, must be at least 100");

  const row_source ten{source_format::f32, somewhere.data(), 10, {}};
  const row_source blocks{source_format::q8_0, somewhere.data(), 10, {}};
  const ids order{0, 1, 2};
  const row_source short_order{source_format::f32, somewhere.data(), 10, order};
  CHECK_FALSE(pack(matrix(12, 8), 2, ten));
  CHECK(said(pack(matrix(12, 8), 3, ten)) == "pack: last row: 13, must be at most 12");
  CHECK(said(pack(matrix(12, 8), -1, ten)) == "pack: first row: -1, must be at least 0");
  CHECK(said(pack(matrix(12, 40), 0, blocks)) ==
        "pack: bytes of a source's row: 0, must be at least 1");
  CHECK(said(pack(matrix(12, 8), 0, short_order)) == "pack: rows in order: 3, must be 10");
  const row_source unscaled{source_format::e4m3, somewhere.data(), 10, {}};
  CHECK(said(pack(matrix(12, 8), 0, unscaled)) == "pack: e4m3 without scales: 1, must be 0");
  packed_matrix shifted = matrix(12, 8);
  shifted.data += 4;
  CHECK(said(pack(shifted, 0, ten)).find("pack: address of packed weights: ") == 0);
  CHECK_FALSE(pack_gated(matrix(20, 8), ten, ten));
  CHECK(said(pack_gated(matrix(22, 8), ten, ten)) ==
        "pack_gated: rows of the target: 22, must be 20");
  const row_source nine{source_format::f32, somewhere.data(), 9, {}};
  CHECK(said(pack_gated(matrix(20, 8), ten, nine)) == "pack_gated: rows of up: 9, must be 10");
  CHECK(said(pack_gated(matrix(20, 40), ten, blocks)) ==
        "pack_gated: bytes of a source's row: 0, must be at least 1");

  const packed_matrix f32 = matrix(40, 32);
  const packed_matrix q8 = matrix(40, 32, weight_format::q8_0);
  CHECK_FALSE(repack(f32, 16, 16, q8));
  CHECK_FALSE(repack(f32, 32, 8, q8));
  CHECK(said(repack(f32, 16, 8, q8)) == "repack: rows: 8, must be a multiple of 16");
  CHECK(said(repack(f32, 8, 16, q8)) == "repack: first row: 8, must be a multiple of 16");
  CHECK(said(repack(f32, 32, 16, q8)) == "repack: last row: 48, must be at most 40");
  CHECK(said(repack(q8, 0, 16, q8)) == "repack: format of what is repacked: 4, must be 0");
  CHECK(said(repack(f32, 0, 16, matrix(41, 32))) == "repack: rows of the target: 41, must be 40");
  CHECK(said(repack(f32, 0, 16, matrix(40, 64))) ==
        "repack: columns of the target: 64, must be 32");

  CHECK_FALSE(unpack_row(f32, 39));
  CHECK(said(unpack_row(f32, 40)) == "unpack_row: row: 40, must be at most 39");
  CHECK(said(unpack_row(f32, -1)) == "unpack_row: row: -1, must be at least 0");
  CHECK_FALSE(unpack_gated_row(f32, 19));
  CHECK(said(unpack_gated_row(f32, 20)) == "unpack_gated_row: row: 20, must be at most 19");
  CHECK(said(unpack_gated_row(f32, -1)) == "unpack_gated_row: row: -1, must be at least 0");
  CHECK_FALSE(rows_of(f32, 16, 24));
  CHECK(said(rows_of(f32, 15, 8)) == "rows_of: first row: 15, must be a multiple of 16");
  CHECK(said(rows_of(f32, 32, 9)) == "rows_of: last row: 41, must be at most 40");
  CHECK(said(rows_of(f32, 32, -1)) == "rows_of: rows: -1, must be at least 0");
  CHECK_FALSE(gated_as_linear(f32));
  CHECK(said(gated_as_linear(matrix(41, 32))) ==
        "gated_as_linear: rows of gate and up: 41, must be a multiple of 2");
}

TEST_CASE("checks of products") {
  using namespace checks;
  const step_limits limits{.rows = 4, .widest_input = 8};
  CHECK_FALSE(linear(limits, rows(4, 8), matrix(6, 8), rows(4, 6)));
  CHECK(said(linear(limits, rows(4, 8), matrix(6, 7), rows(4, 6))) ==
        "linear: columns of x: 8, must be 7");
  CHECK(said(linear(limits, rows(4, 8), matrix(6, 8), rows(4, 5))) ==
        "linear: rows of w: 6, must be 5");
  CHECK(said(linear(limits, rows(4, 8), matrix(6, 8), rows(3, 6))) ==
        "linear: rows of y: 3, must be 4");
  CHECK(said(linear(limits, rows(5, 8), matrix(6, 8), rows(5, 6))) ==
        "linear: rows of x: 5, must be at most 4");
  CHECK(said(linear(limits, rows(4, 9), matrix(6, 9), rows(4, 6))) ==
        "linear: columns of x: 9, must be at most 8");
  CHECK_FALSE(linear_gated(limits, rows(4, 8), matrix(12, 8), rows(4, 6)));
  CHECK(said(linear_gated(limits, rows(4, 8), matrix(6, 8), rows(4, 6))) ==
        "linear_gated: rows of w: 6, must be 12");

  step_limits training = limits;
  training.training = true;
  const slots two{{0, 3}, {3, 1}};
  const packed_matrix w = matrix(6, 8);
  CHECK_FALSE(linear_backward_input(training, rows(4, 6), w, rows(4, 8)));
  CHECK(said(linear_backward_input(training, rows(4, 5), w, rows(4, 8))) ==
        "linear_backward_input: columns of dy: 5, must be 6");
  CHECK(said(linear_backward_input(training, rows(4, 6), w, rows(4, 7))) ==
        "linear_backward_input: columns of dx: 7, must be 8");
  CHECK(said(linear_backward_input(training, rows(4, 6), w, rows(2, 8))) ==
        "linear_backward_input: rows of dx: 2, must be 4");
  CHECK(said(linear_backward_input(limits, rows(4, 6), w, rows(4, 8))) ==
        "linear_backward_input: limits that include training: 0, must be 1");
  CHECK(said(linear_backward_input(training, rows(5, 6), w, rows(5, 8))) ==
        "linear_backward_input: rows: 5, must be at most 4");

  CHECK_FALSE(linear_backward_weights(training, rows(4, 6), rows(4, 8), two, w));
  CHECK_FALSE(linear_backward_weights(training, rows(4, 6), rows(4, 8), {}, w));
  CHECK(said(linear_backward_weights(training, rows(4, 6), rows(3, 8), two, w)) ==
        "linear_backward_weights: rows of x: 3, must be 4");
  CHECK(said(linear_backward_weights(training, rows(4, 7), rows(4, 8), two, w)) ==
        "linear_backward_weights: columns of dy: 7, must be 6");
  CHECK(said(linear_backward_weights(training, rows(4, 6), rows(4, 7), two, w)) ==
        "linear_backward_weights: columns of x: 7, must be 8");
  CHECK(said(linear_backward_weights(training, rows(4, 6), rows(4, 9), two, matrix(6, 9))) ==
        "linear_backward_weights: columns of x: 9, must be at most 8");
  CHECK(said(linear_backward_weights(training, rows(4, 6), rows(4, 8), two,
                                     with(w, weight_format::f16))) ==
        "linear_backward_weights: format of dw: 1, must be 0");

  CHECK_FALSE(bias_backward(training, rows(4, 6), two));
  CHECK(said(bias_backward(training, rows(4, 6), slots{{0, 3}})) ==
        "bias_backward: rows of all slots: 3, must be 4");
  CHECK(said(bias_backward(training, rows(4, 6), slots{{0, 3}, {2, 1}})) ==
        "bias_backward: a slot's first row: 2, must be 3");
  CHECK(said(bias_backward(training, rows(4, 6), slots{{0, 5}, {5, -1}})) ==
        "bias_backward: rows of a slot: -1, must be at least 0");
  CHECK(said(bias_backward(limits, rows(4, 6), two)) ==
        "bias_backward: limits that include training: 0, must be 1");
}

TEST_CASE("checks of activations and norms in training") {
  using namespace checks;
  CHECK_FALSE(activate_gated(rows(3, 64), rows(3, 17)));
  CHECK(said(activate_gated(rows(3, 34), rows(3, 17))) ==
        "activate_gated: columns of gate and up: 34, must be 64");
  CHECK(said(activate_gated(rows(2, 64), rows(3, 17))) ==
        "activate_gated: rows of gate and up: 2, must be 3");
  CHECK_FALSE(activate_gated_backward(rows(3, 32), rows(3, 64)));
  CHECK(said(activate_gated_backward(rows(3, 32), rows(3, 65))) ==
        "activate_gated_backward: columns of gate and up: 65, must be 64");

  const step_limits limits{.rows = 4, .widest_input = 8, .training = true};
  const slots one{{0, 4}};
  CHECK_FALSE(rms_norm_backward(limits, rows(4, 8), rows(4, 8), one, rows(4, 8)));
  CHECK(said(rms_norm_backward(limits, rows(3, 8), rows(4, 8), one, rows(4, 8))) ==
        "rms_norm_backward: rows of dy: 3, must be 4");
  CHECK(said(rms_norm_backward(limits, rows(4, 8), rows(4, 8), one, rows(4, 6))) ==
        "rms_norm_backward: columns of dx: 6, must be 8");
  CHECK(said(rms_norm_backward(limits, rows(4, 8), rows(4, 8), slots{{1, 3}}, rows(4, 8))) ==
        "rms_norm_backward: a slot's first row: 1, must be 0");
}

TEST_CASE("checks of rotary embedding and of attention over a cache") {
  using namespace checks;
  const std::array<std::int32_t, 2> blocks{0, 1};
  const attention_shape shape{.query_heads = 4};
  const rope_step turn{.rotary_size = 8, .cos_sin = nullptr};
  const kv_cache cache{{.key_heads = 2, .head_size = 8}, somewhere.data(), 1024};
  const std::vector<attention_span> spans{{0, 1, 20, blocks.data()}, {1, 2, 0, blocks.data()}};
  const auto store = [&](rows_in qkv, const std::vector<attention_span>& which,
                         const attention_shape& how, const rope_step& rope, const kv_cache& where,
                         int largest = 256) {
    return said(rope_store(qkv, which, how, rope, where, 1024, largest));
  };
  CHECK(store(rows(3, 64), spans, shape, turn, cache).empty());
  CHECK(store(rows(3, 63), spans, shape, turn, cache) ==
        "rope_store: columns of queries, keys and values: 63, must be 64");
  CHECK(store(rows(4, 64), spans, shape, turn, cache) ==
        "rope_store: rows of all spans: 3, must be 4");
  CHECK(store(rows(3, 64), spans, shape, {.rotary_size = 10, .cos_sin = nullptr}, cache) ==
        "rope_store: turned values of a head: 10, must be at most 8");
  CHECK(store(rows(3, 64), spans, shape, {.rotary_size = 7, .cos_sin = nullptr}, cache) ==
        "rope_store: turned values of a head: 7, must be a multiple of 2");
  CHECK(store(rows(3, 64), spans, shape, turn, cache, 4) ==
        "rope_store: values of a head: 8, must be at most 4");
  kv_cache wrong = cache;
  wrong.block_stride = 1008;
  CHECK(store(rows(3, 64), spans, shape, turn, wrong) ==
        "rope_store: bytes from one KV block to the next: 1008, must be at least 1024");
  wrong.block_stride = 1032;
  CHECK(store(rows(3, 64), spans, shape, turn, wrong) ==
        "rope_store: bytes from one KV block to the next: 1032, must be a multiple of 16");
  wrong = cache;
  wrong.base += 8;
  CHECK(store(rows(3, 64), spans, shape, turn, wrong).find("rope_store: address of KV blocks: ") ==
        0);
  wrong = cache;
  wrong.layout.head_size = 12;
  CHECK(store(rows(3, 96), spans, shape, turn, wrong) ==
        "rope_store: values of a head: 12, must be a multiple of 8");
  wrong.layout = {.key_heads = 0, .head_size = 8};
  CHECK(store(rows(3, 32), spans, shape, turn, wrong) ==
        "rope_store: key heads: 0, must be at least 1");
  const auto spoiled = [&](attention_span last) {
    return store(rows(3, 64), {spans[0], last}, shape, turn, cache);
  };
  CHECK(spoiled({1, 2, -1, blocks.data()}) ==
        "rope_store: a span's first position: -1, must be at least 0");
  CHECK(spoiled({2, 2, 0, blocks.data()}) == "rope_store: a span's last row: 4, must be at most 3");
  CHECK(spoiled({-1, 2, 0, blocks.data()}) ==
        "rope_store: a span's first row: -1, must be at least 0");
  CHECK(spoiled({1, 2, 0, nullptr}) == "rope_store: a span without blocks: 1, must be 0");

  const auto attend = [&](rows_in qkv, const attention_shape& how, rows_in out) {
    return said(attention(qkv, spans, how, cache, 1024, 256, out));
  };
  CHECK(attend(rows(3, 64), shape, rows(3, 32)).empty());
  CHECK(attend(rows(3, 24), shape, rows(3, 32)) ==
        "attention: columns of queries: 24, must be at least 32");
  CHECK(attend(rows(3, 64), shape, rows(3, 31)) == "attention: columns out: 31, must be 32");
  CHECK(attend(rows(3, 64), shape, rows(2, 32)) == "attention: rows out: 2, must be 3");
  CHECK(attend(rows(3, 64), {.query_heads = 3}, rows(3, 24)) ==
        "attention: query heads: 3, must be a multiple of 2");
  CHECK(attend(rows(3, 64), {.query_heads = 0}, rows(3, 0)) ==
        "attention: query heads: 0, must be at least 1");
}

TEST_CASE("checks of training's rotary embedding and attention") {
  using namespace checks;
  const step_limits limits{.rows = 6,
                           .widest_input = 64,
                           .context_positions = 4,
                           .query_heads = 4,
                           .head_size = 8,
                           .training = true};
  const rope_step turn{.rotary_size = 8, .cos_sin = nullptr};
  CHECK_FALSE(rope(rows(6, 64), 4, 2, 8, turn, rows(6, 64)));
  CHECK(said(rope(rows(6, 60), 4, 2, 8, turn, rows(6, 60))) ==
        "rope: columns of queries, keys and values: 60, must be 64");
  CHECK(said(rope(rows(6, 64), 4, 2, 8, turn, rows(5, 64))) == "rope: rows out: 5, must be 6");
  CHECK(said(rope(rows(6, 64), 4, 2, 8, {.rotary_size = 16, .cos_sin = nullptr}, rows(6, 64))) ==
        "rope: turned values of a head: 16, must be at most 8");

  const slots one{{0, 6}};
  const auto back = [&](const step_limits& within, rows_in qkv, int heads, bool normed,
                        const slots& of_slots, rows_in d) {
    return said(rope_backward(within, qkv, heads, 2, 8, turn, normed, of_slots, d));
  };
  CHECK(back(limits, rows(6, 64), 4, true, one, rows(6, 64)).empty());
  CHECK(back(limits, rows(0, 0), 4, false, one, rows(6, 64)).empty());
  CHECK(back(limits, rows(5, 64), 4, true, one, rows(6, 64)) ==
        "rope_backward: rows of rope's input: 5, must be 6");
  CHECK(back(limits, rows(6, 64), 4, true, slots{{0, 5}}, rows(6, 64)) ==
        "rope_backward: rows of all slots: 5, must be 6");
  CHECK(back(limits, rows(6, 72), 5, true, one, rows(6, 72)) ==
        "rope_backward: query heads: 5, must be at most 4");
  CHECK(back(limits, rows(6, 64), 4, true, one, rows(6, 63)) ==
        "rope_backward: columns of queries, keys and values: 63, must be 64");

  const std::vector<packed_span> spans{{0, 4}, {4, 2}};
  const attention_shape shape{.query_heads = 4};
  const auto forward = [&](rows_in qkv, const std::vector<packed_span>& which,
                           const attention_shape& how, rows_in out, int largest = 256) {
    return said(packed_attention(limits, qkv, which, how, 2, 8, largest, out));
  };
  CHECK(forward(rows(6, 64), spans, shape, rows(6, 32)).empty());
  CHECK(forward(rows(6, 64), {{0, 4}, {4, 1}}, shape, rows(6, 32)) ==
        "packed_attention: rows of all spans: 5, must be 6");
  CHECK(forward(rows(6, 64), {{0, 3}, {4, 2}}, shape, rows(6, 32)) ==
        "packed_attention: a span's first row: 4, must be 3");
  CHECK(forward(rows(6, 64), {{0, 5}, {5, 1}}, shape, rows(6, 32)) ==
        "packed_attention: rows of a span: 5, must be at most 4");
  CHECK(forward(rows(6, 64), spans, {.query_heads = 4, .softcap = 30.0F}, rows(6, 32)) ==
        "packed_attention: a softcap: 1, must be 0");
  CHECK(forward(rows(6, 56), spans, {.query_heads = 3}, rows(6, 24)) ==
        "packed_attention: query heads: 3, must be a multiple of 2");
  CHECK(forward(rows(6, 64), spans, shape, rows(6, 30)) ==
        "packed_attention: columns out: 30, must be 32");
  CHECK(forward(rows(6, 64), spans, shape, rows(6, 32), 4) ==
        "packed_attention: values of a head: 8, must be at most 4");
  CHECK(forward(rows(7, 64), {{0, 4}, {4, 3}}, shape, rows(7, 32)) ==
        "packed_attention: rows: 7, must be at most 6");

  const auto backward = [&](rows_in dout, rows_in out, rows_in dqkv) {
    return said(
        packed_attention_backward(limits, dout, rows(6, 64), out, spans, shape, 2, 8, 256, dqkv));
  };
  CHECK(backward(rows(6, 32), rows(6, 32), rows(6, 64)).empty());
  CHECK(backward(rows(5, 32), rows(6, 32), rows(6, 64)) ==
        "packed_attention_backward: rows of dout: 5, must be 6");
  CHECK(backward(rows(6, 32), rows(6, 31), rows(6, 64)) ==
        "packed_attention_backward: columns of out: 31, must be 32");
  CHECK(backward(rows(6, 32), rows(6, 32), rows(6, 62)) ==
        "packed_attention_backward: columns of dqkv: 62, must be 64");
}

TEST_CASE("checks of cross entropy, draws and optimizer steps") {
  using namespace checks;
  const std::vector<cross_entropy_row> softmax(2);
  const floats scales(2), one_scale(1);
  CHECK_FALSE(cross_entropy_observe(rows(2, 9), 0, softmax));
  CHECK(said(cross_entropy_observe(rows(3, 9), 0, softmax)) ==
        "cross_entropy_observe: rows of softmax: 2, must be 3");
  CHECK(said(cross_entropy_observe(rows(2, 0), 0, softmax)) ==
        "cross_entropy_observe: columns of logits: 0, must be at least 1");
  CHECK(said(cross_entropy_observe(rows(2, 9), -1, softmax)) ==
        "cross_entropy_observe: first id: -1, must be at least 0");
  CHECK_FALSE(cross_entropy_backward(rows(2, 9), 0, softmax, scales));
  CHECK(said(cross_entropy_backward(rows(2, 9), 0, softmax, one_scale)) ==
        "cross_entropy_backward: scales: 1, must be 2");
  CHECK(said(cross_entropy_backward(rows(1, 9), 0, softmax, one_scale)) ==
        "cross_entropy_backward: rows of softmax: 2, must be 1");

  const ids room(2);
  CHECK_FALSE(draw(rows(2, 9), of<draw_rule>({{}, {}}), room));
  CHECK(said(draw(rows(2, 9), of<draw_rule>({{}}), room)) == "draw: rules: 1, must be 2");
  CHECK(said(draw(rows(2, 9), of<draw_rule>({{}, {}}), ids(1))) == "draw: ids: 1, must be 2");
  CHECK(said(draw(rows(2, 9), of<draw_rule>({{}, {.temperature = -1.0F}}), room)) ==
        "draw: a temperature of 0 or more: 0, must be 1");
  CHECK(said(draw(rows(2, 9),
                  of<draw_rule>({{.temperature = std::numeric_limits<float>::quiet_NaN()}, {}}),
                  room)) == "draw: a temperature of 0 or more: 0, must be 1");
  CHECK(said(draw(rows(2, 9), of<draw_rule>({{.u = 1.0}, {}}), room)) ==
        "draw: a u in [0, 1): 0, must be 1");

  const floats numbers(3);
  const std::array<std::span<const float>, 2> arrays{numbers, numbers};
  const std::array<double, 2> sums{};
  CHECK_FALSE(sums_of_squares(arrays, sums));
  CHECK(said(sums_of_squares(arrays, std::span(sums).first(1))) ==
        "sums_of_squares: sums: 1, must be 2");
  CHECK_FALSE(adamw({.step = 1}, 0));
  CHECK(said(adamw({.step = 0}, 5)) == "adamw: step: 0, must be at least 1");
  CHECK(said(adamw({.step = 1}, -5)) == "adamw: numbers: -5, must be at least 0");
}

TEST_CASE("checks of mixtures of experts") {
  using namespace checks;
  const step_limits limits{.rows = 4,
                           .widest_input = 8,
                           .experts = 3,
                           .experts_per_row = 2,
                           .expert_hidden = 6,
                           .training = true};
  const moe_routes routes{.count = 2, .ids = nullptr, .weights = nullptr};
  CHECK_FALSE(moe_route(rows(4, 3), routes));
  CHECK(said(moe_route(rows(4, 1), routes)) == "moe_route: experts of a row: 2, must be at most 1");
  CHECK(said(moe_route(rows(4, 3), {})) == "moe_route: experts of a row: 0, must be at least 1");
  CHECK_FALSE(moe_route_backward(rows(4, 3), routes, rows(4, 3)));
  CHECK(said(moe_route_backward(rows(4, 3), routes, rows(4, 2))) ==
        "moe_route_backward: columns of dlogits: 2, must be 3");

  const expert_matrices expert{matrix(12, 8), matrix(8, 6)};
  const std::vector<expert_matrices> three(3, expert);
  const auto mixed = [&](rows_in h, const std::vector<expert_matrices>& experts,
                         const moe_routes& chosen,
                         rows_in x) { return said(moe(limits, h, chosen, experts, x)); };
  const auto spoiled = [&](const expert_matrices& last) {
    return mixed(rows(4, 8), {expert, expert, last}, routes, rows(4, 8));
  };
  CHECK(mixed(rows(4, 8), three, routes, rows(4, 8)).empty());
  CHECK(mixed(rows(4, 8), three, routes, rows(4, 7)) == "moe: columns of x: 7, must be 8");
  CHECK(mixed(rows(5, 8), three, routes, rows(5, 8)) == "moe: rows of h: 5, must be at most 4");
  CHECK(mixed(rows(4, 9), three, routes, rows(4, 9)) == "moe: columns of h: 9, must be at most 8");
  CHECK(mixed(rows(4, 8), std::vector<expert_matrices>(4, expert), routes, rows(4, 8)) ==
        "moe: experts: 4, must be at most 3");
  CHECK(mixed(rows(4, 8), three, {.count = 3, .ids = nullptr, .weights = nullptr}, rows(4, 8)) ==
        "moe: experts of a row: 3, must be at most 2");
  CHECK(mixed(rows(4, 8), std::vector<expert_matrices>(3, {matrix(14, 8), matrix(8, 7)}), routes,
              rows(4, 8)) == "moe: columns of down: 7, must be at most 6");
  CHECK(spoiled({matrix(12, 7), matrix(8, 6)}) ==
        "moe: columns of an expert's gate and up: 7, must be 8");
  CHECK(spoiled({matrix(10, 8), matrix(8, 6)}) ==
        "moe: rows of an expert's gate and up: 10, must be 12");
  CHECK(spoiled({matrix(12, 8), matrix(8, 5)}) == "moe: columns of an expert's down: 5, must be 6");
  CHECK(spoiled({matrix(12, 8), matrix(7, 6)}) == "moe: rows of an expert's down: 7, must be 8");
  CHECK(spoiled({with(matrix(12, 8), weight_format::bf16), matrix(8, 6)}) ==
        "moe: format of an expert's gate and up: 2, must be 0");
  CHECK(spoiled({matrix(12, 8), with(matrix(8, 6), weight_format::bf16)}) ==
        "moe: format of an expert's down: 2, must be 0");

  const slots one{{0, 4}};
  const auto backward = [&](const step_limits& within, rows_in dy, rows_in dh,
                            const std::vector<expert_matrices>& gradients) {
    return said(moe_backward(within, dy, rows(4, 8), routes, three, one, gradients, dh));
  };
  CHECK(backward(limits, rows(4, 8), rows(4, 8), three).empty());
  CHECK(backward(limits, rows(4, 8), rows(4, 8), {}).empty());
  CHECK(backward(limits, rows(3, 8), rows(4, 8), three) ==
        "moe_backward: rows of dy: 3, must be 4");
  CHECK(backward(limits, rows(4, 8), rows(4, 9), three) ==
        "moe_backward: columns of dh: 9, must be 8");
  CHECK(backward(limits, rows(4, 8), rows(4, 8), {expert}) ==
        "moe_backward: gradients of experts: 1, must be 3");
  CHECK(backward(limits, rows(4, 8), rows(4, 8),
                 {expert, expert, {with(matrix(12, 8), weight_format::q8_0), matrix(8, 6)}}) ==
        "moe_backward: format of gate and up's gradient: 4, must be 0");
  step_limits serving = limits;
  serving.training = false;
  CHECK(backward(serving, rows(4, 8), rows(4, 8), three) ==
        "moe_backward: limits that include training: 0, must be 1");
}

TEST_CASE("a backend given what an op does not take ends its process with that line") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    signal(SIGABRT, SIG_DFL);
    test_device device(cpu::instruction_set::reference);
    const packed_matrix w = device.room(weight_format::f32, 6, 8);
    floats x(4 * 7), y(4 * 6);
    device->linear({x.data(), 4, 7}, w, nullptr, false, {y.data(), 4, 6});
    _exit(0);
  }
  close(ends[1]);
  std::string told;
  std::array<char, 256> some{};
  for (ssize_t n = 0; (n = read(ends[0], some.data(), some.size())) > 0;)
    told.append(some.data(), static_cast<std::size_t>(n));
  close(ends[0]);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  CHECK(told.find("tandem: broken invariant: linear: columns of x: 7, must be 8\n") !=
        std::string::npos);
}
