#include "kernels/op_checks.hpp"

#include "kernels/op_findings.hpp"

#include <cstdio>
#include <cstdlib>

namespace tandem::kernels {

std::string to_string(const refusal& why) {
  if (!why) return "";
  constexpr const char* relations[] = {"must be ", "must be at least ", "must be at most ",
                                       "must be a multiple of "};
  return std::string(why.op) + ": " + why.what + ": " + std::to_string(why.found) + ", " +
         relations[static_cast<int>(why.must_be)] + std::to_string(why.wanted);
}

void end_with(const refusal& why) {
  std::fprintf(stderr, "tandem: broken invariant: %s\n", to_string(why).c_str());
  std::fflush(stderr);
  std::abort();
}

namespace checks {
namespace {

std::int64_t address(const void* at) {
  return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(at));
}

findings& source_rows(findings& so_far, const packed_matrix& target, const row_source& source) {
  so_far.at_least("bytes of a source's row",
                  static_cast<std::int64_t>(source_row_bytes(source.format, target.columns)), 1);
  if (source.format == source_format::e4m3)
    so_far.equal("e4m3 without scales", source.scales.data == nullptr, 0);
  if (!source.order.empty()) so_far.equal("rows in order", std::ssize(source.order), source.rows);
  return so_far.multiple("address of packed weights", address(target.data), 64);
}

findings& rows_within(findings& so_far, std::int64_t first_row, std::int64_t rows,
                      std::int64_t end) {
  return so_far.at_least("first row", first_row, 0)
      .at_least("rows", rows, 0)
      .at_most("last row", first_row + rows, end);
}

findings& product(findings& so_far, const step_limits& limits, const rows_in& x,
                  const packed_matrix& w, const rows_in& y, std::int64_t outputs) {
  return so_far.equal("rows of y", y.rows, x.rows)
      .equal("columns of x", x.columns, w.columns)
      .equal("rows of w", w.rows, outputs)
      .at_most("rows of x", x.rows, limits.rows)
      .at_most("columns of x", x.columns, limits.widest_input);
}

findings& cached(findings& so_far, const rows_in& qkv, std::span<const attention_span> spans,
                 const attention_shape& shape, const kv_cache& cache, std::size_t block_bytes,
                 int largest_head) {
  const kv_layout& layout = cache.layout;
  so_far.at_least("key heads", layout.key_heads, 1)
      .at_least("values of a head", layout.head_size, 1)
      .multiple("values of a head", layout.head_size, 8)
      .at_most("values of a head", layout.head_size, largest_head)
      .at_least("bytes from one KV block to the next",
                static_cast<std::int64_t>(cache.block_stride),
                static_cast<std::int64_t>(block_bytes))
      .multiple("bytes from one KV block to the next",
                static_cast<std::int64_t>(cache.block_stride), 16)
      .multiple("address of KV blocks", address(cache.base), 16)
      .at_least("query heads", shape.query_heads, 1);
  std::int64_t rows = 0;
  for (const attention_span& span : spans) {
    so_far.at_least("a span's first row", span.first_row, 0)
        .at_least("rows of a span", span.row_count, 0)
        .at_least("a span's first position", span.first_position, 0)
        .at_most("a span's last row", std::int64_t{span.first_row} + span.row_count, qkv.rows);
    if (span.row_count > 0) so_far.equal("a span without blocks", span.blocks == nullptr, 0);
    rows += span.row_count;
  }
  return so_far.equal("rows of all spans", rows, qkv.rows);
}

}  // namespace

refusal bind_workspace(std::size_t memory, std::size_t wanted) {
  return findings("bind_workspace")
      .at_least("bytes", static_cast<std::int64_t>(memory), static_cast<std::int64_t>(wanted));
}

refusal copy_rows(rows_in from_TX, rows_in to_TX) {
  return findings("copy_rows").same_shape("rows to", "columns to", to_TX, from_TX);
}

refusal pack(const packed_matrix& target, std::int64_t first_row, const row_source& source) {
  findings so_far("pack");
  source_rows(so_far, target, source);
  return rows_within(so_far, first_row, source.rows, target.rows);
}

refusal pack_gated(const packed_matrix& target, const row_source& gate, const row_source& up) {
  findings so_far("pack_gated");
  source_rows(so_far, target, gate);
  return source_rows(so_far, target, up)
      .equal("rows of up", up.rows, gate.rows)
      .equal("rows of the target", target.rows, 2 * gate.rows);
}

refusal repack(const packed_matrix& f32, std::int64_t first_row, std::int64_t rows,
               const packed_matrix& target) {
  findings so_far("repack");
  in_float32(so_far, "format of what is repacked", f32)
      .equal("rows of the target", target.rows, f32.rows)
      .equal("columns of the target", target.columns, f32.columns)
      .multiple("first row", first_row, panel);
  rows_within(so_far, first_row, rows, target.rows);
  if (first_row + rows < target.rows) so_far.multiple("rows", rows, panel);
  return so_far;
}

refusal unpack_row(const packed_matrix& source, std::int64_t row) {
  return findings("unpack_row").at_least("row", row, 0).at_most("row", row, source.rows - 1);
}

refusal unpack_gated_row(const packed_matrix& source, std::int64_t row) {
  return findings("unpack_gated_row")
      .at_least("row", row, 0)
      .at_most("row", row, source.rows / 2 - 1);
}

refusal rows_of(const packed_matrix& whole, std::int64_t first_row, std::int64_t rows) {
  findings so_far("rows_of");
  so_far.multiple("first row", first_row, panel);
  return rows_within(so_far, first_row, rows, whole.rows);
}

refusal gated_as_linear(const packed_matrix& w_FD) {
  return findings("gated_as_linear").multiple("rows of gate and up", w_FD.rows, 2);
}

refusal embed(const packed_matrix& table_VD, std::span<const std::int32_t> ids_T, rows_in x_TD) {
  return findings("embed")
      .equal("ids", std::ssize(ids_T), x_TD.rows)
      .equal("columns of x", x_TD.columns, table_VD.columns)
      .each_below("id", ids_T, table_VD.rows);
}

refusal rms_norm(rows_in x_TD, rows_in y_TD) {
  return findings("rms_norm").same_shape("rows of y", "columns of y", y_TD, x_TD);
}

refusal add_rms_norm(rows_in h_TD, rows_in x_TD) {
  return findings("add_rms_norm").same_shape("rows of x", "columns of x", x_TD, h_TD);
}

refusal linear(const step_limits& limits, rows_in x_TX, const packed_matrix& w_YX, rows_in y_TY) {
  findings so_far("linear");
  return product(so_far, limits, x_TX, w_YX, y_TY, y_TY.columns);
}

refusal linear_gated(const step_limits& limits, rows_in x_TD, const packed_matrix& w_FD,
                     rows_in y_TF) {
  findings so_far("linear_gated");
  return product(so_far, limits, x_TD, w_FD, y_TF, 2 * y_TF.columns);
}

refusal rope_store(rows_in qkv_TX, std::span<const attention_span> spans,
                   const attention_shape& shape, const rope_step& rope, const kv_cache& cache,
                   std::size_t block_bytes, int largest_head) {
  const kv_layout& layout = cache.layout;
  findings so_far("rope_store");
  heads(so_far, qkv_TX.columns, shape.query_heads, layout.key_heads, layout.head_size);
  rotary(so_far, rope, layout.head_size);
  return cached(so_far, qkv_TX, spans, shape, cache, block_bytes, largest_head);
}

refusal attention(rows_in qkv_TX, std::span<const attention_span> spans,
                  const attention_shape& shape, const kv_cache& cache, std::size_t block_bytes,
                  int largest_head, rows_in out_TX) {
  const std::int64_t queries = std::int64_t{shape.query_heads} * cache.layout.head_size;
  findings so_far("attention");
  return cached(so_far, qkv_TX, spans, shape, cache, block_bytes, largest_head)
      .multiple("query heads", shape.query_heads, cache.layout.key_heads)
      .at_most("query heads", shape.query_heads, 65'535)  // of a grid
      .at_least("columns of queries", qkv_TX.columns, queries)
      .equal("rows out", out_TX.rows, qkv_TX.rows)
      .equal("columns out", out_TX.columns, queries);
}

refusal moe_route(rows_in logits_TE, const moe_routes& routes) {
  findings so_far("moe_route");
  return routes_of(so_far, routes, logits_TE.columns);
}

refusal moe(const step_limits& limits, rows_in h_TD, const moe_routes& routes,
            std::span<const expert_matrices> experts, rows_in x_TD) {
  findings so_far("moe");
  so_far.same_shape("rows of x", "columns of x", x_TD, h_TD);
  return experts_of(so_far, limits, h_TD, routes, experts);
}

refusal gather_rows(rows_in x_TD, std::span<const std::int32_t> rows, rows_in y_BD) {
  return findings("gather_rows")
      .equal("indices", std::ssize(rows), y_BD.rows)
      .equal("columns of y", y_BD.columns, x_TD.columns)
      .each_below("index", rows, x_TD.rows);
}

refusal draw(rows_in logits_BV, std::span<const draw_rule> how_B,
             std::span<const std::int32_t> ids_B) {
  findings so_far("draw");
  so_far.equal("rules", std::ssize(how_B), logits_BV.rows)
      .equal("ids", std::ssize(ids_B), logits_BV.rows);
  for (const draw_rule& how : how_B)
    so_far.equal("a temperature of 0 or more", how.temperature >= 0.0F, 1)
        .equal("a u in [0, 1)", how.u >= 0.0 && how.u < 1.0, 1);
  return so_far;
}

}  // namespace checks
}  // namespace tandem::kernels
