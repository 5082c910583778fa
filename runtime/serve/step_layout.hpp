// From a step plan's words to the rows of forward passes. All rows over the same whole weights are
// one pass, those without an adapter first and then adapter by adapter; other whole weights are
// passes of their own behind it. The plan's order of chunks does not change what comes of them.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/model/forward.hpp"
#include "runtime/serve/device.hpp"
#include "runtime/serve/step_plan.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace tandem::serve {

// What the layout asks of a chunk's slot.
struct slot_view {
  variant_id runs_on = 0;
  const variant* what = nullptr;     // null: the base
  std::span<const token_id> prompt;  // where it is to be scored
  const std::int32_t* blocks = nullptr;
};

// A row of logits that somebody wants, and what for.
struct logit_use {
  std::size_t chunk = 0;
  int position = 0;  // of the row
  bool draws = false;
  token_id next = -1;  // otherwise: the prompt's own next token, to be scored
};

class step_layout {
 public:
  // Room for steps of so many rows.
  explicit step_layout(std::size_t rows);

  void lay_out(const std::vector<step_chunk>& chunks,
               const std::function<slot_view(const step_chunk&)>& slot_of);

  std::size_t pass_count() const { return passes_.size(); }
  // Valid until the next lay_out. Logits of all passes come to stand one behind the other.
  model::forward_input pass(std::size_t index) const;
  // In the order of their logits.
  const std::vector<logit_use>& uses() const { return uses_; }
  // Which of them are of this chunk: [first, first + count).
  struct range {
    std::size_t first = 0;
    std::size_t count = 0;
  };
  range uses_of(std::size_t chunk) const { return uses_of_.at(chunk); }

 private:
  // Row indices of a pass count from its first row.
  struct pass_ranges {
    const model::weights* over = nullptr;
    range rows;
    range spans;
    range groups;
    range uses;
  };
  void begin_group(const slot_view& slot);
  void add(std::size_t index, const step_chunk& chunk, const slot_view& slot);

  std::vector<std::int32_t> ids_T_, positions_T_, logit_rows_;
  std::vector<kernels::attention_span> spans_;
  std::vector<model::row_group> groups_;
  std::vector<pass_ranges> passes_;
  std::vector<logit_use> uses_;
  std::vector<range> uses_of_;
};

}  // namespace tandem::serve
