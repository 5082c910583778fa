// How checks of ops are written: conditions in a row, of which the first that fails is kept.
#pragma once

#include "kernels/op_checks.hpp"

namespace tandem::kernels::checks {

inline constexpr std::int64_t panel = 16;  // outputs of one, see packed_matrix

// Keeps the first thing that is wrong.
class findings {
 public:
  explicit findings(const char* op) : op_(op) {}

  findings& equal(const char* what, std::int64_t found, std::int64_t wanted) {
    return note(found == wanted, what, found, refusal::relation::equal, wanted);
  }
  findings& at_least(const char* what, std::int64_t found, std::int64_t wanted) {
    return note(found >= wanted, what, found, refusal::relation::at_least, wanted);
  }
  findings& at_most(const char* what, std::int64_t found, std::int64_t wanted) {
    return note(found <= wanted, what, found, refusal::relation::at_most, wanted);
  }
  findings& multiple(const char* what, std::int64_t found, std::int64_t of) {
    return note(of > 0 && found % of == 0, what, found, refusal::relation::multiple_of, of);
  }
  findings& same_shape(const char* rows, const char* columns, const rows_in& found,
                       const rows_in& wanted) {
    return equal(rows, found.rows, wanted.rows).equal(columns, found.columns, wanted.columns);
  }
  findings& each_below(const char* what, std::span<const std::int32_t> ids, std::int64_t end) {
    for (const std::int32_t id : ids) at_least(what, id, 0).at_most(what, id, end - 1);
    return *this;
  }
  // Adjacent parts that cover all rows: segments and packed spans.
  template <class Part>
  findings& cover(const char* first_row, const char* count, const char* all,
                  std::span<const Part> parts, std::int64_t rows) {
    std::int64_t next = 0;
    for (const Part& part : parts) {
      equal(first_row, part.first_row, next).at_least(count, part.row_count, 0);
      next += part.row_count;
    }
    return equal(all, next, rows);
  }
  findings& training(const step_limits& limits, std::int64_t rows) {
    return equal("limits that include training", limits.training ? 1 : 0, 1)
        .at_most("rows", rows, limits.rows);
  }
  findings& slots(const step_limits& limits, std::int64_t rows,
                  std::span<const row_segment> slots) {
    training(limits, rows);
    if (slots.empty()) return *this;
    return cover("a slot's first row", "rows of a slot", "rows of all slots", slots, rows);
  }

  operator refusal() const { return found_; }  // NOLINT: what a check returns

 private:
  findings& note(bool holds, const char* what, std::int64_t found, refusal::relation must_be,
                 std::int64_t wanted) {
    if (!holds && !found_) [[unlikely]]
      found_ = {op_, what, found, must_be, wanted};
    return *this;
  }

  const char* op_;
  refusal found_;
};

inline findings& heads(findings& so_far, std::int64_t columns, int query_heads, int key_heads,
                       int head_size) {
  return so_far.at_least("key heads", key_heads, 1)
      .at_least("values of a head", head_size, 1)
      .equal("columns of queries, keys and values", columns,
             (std::int64_t{query_heads} + 2 * std::int64_t{key_heads}) * head_size);
}

inline findings& rotary(findings& so_far, const rope_step& rope, int head_size) {
  return so_far.at_least("turned values of a head", rope.rotary_size, 0)
      .at_most("turned values of a head", rope.rotary_size, head_size)
      .multiple("turned values of a head", rope.rotary_size, 2);
}

inline findings& routes_of(findings& so_far, const moe_routes& routes, std::int64_t experts) {
  return so_far.at_least("experts of a row", routes.count, 1)
      .at_most("experts of a row", routes.count, experts);
}

inline findings& experts_of(findings& so_far, const step_limits& limits, const rows_in& h,
                            const moe_routes& routes, std::span<const expert_matrices> experts) {
  routes_of(so_far, routes, std::ssize(experts))
      .at_most("experts of a row", routes.count, limits.experts_per_row)
      .at_most("experts", std::ssize(experts), limits.experts)
      .at_most("rows of h", h.rows, limits.rows)
      .at_most("columns of h", h.columns, limits.widest_input);
  if (experts.empty()) return so_far;
  const expert_matrices& first = experts.front();
  const std::int64_t F = first.down_DF.columns;
  so_far.at_most("columns of down", F, limits.expert_hidden);
  for (const auto& [gate_up, down] : experts) {
    so_far.equal("columns of an expert's gate and up", gate_up.columns, h.columns)
        .equal("rows of an expert's gate and up", gate_up.rows, 2 * F)
        .equal("columns of an expert's down", down.columns, F)
        .equal("rows of an expert's down", down.rows, h.columns)
        .equal("format of an expert's gate and up", static_cast<int>(gate_up.format),
               static_cast<int>(first.gate_up_FD.format))
        .equal("format of an expert's down", static_cast<int>(down.format),
               static_cast<int>(first.down_DF.format));
  }
  return so_far;
}

inline findings& in_float32(findings& so_far, const char* what, const packed_matrix& w) {
  return so_far.equal(what, static_cast<int>(w.format), static_cast<int>(weight_format::f32));
}

}  // namespace tandem::kernels::checks
