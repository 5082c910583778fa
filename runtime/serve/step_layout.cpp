#include "runtime/serve/step_layout.hpp"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

namespace tandem::serve {
namespace {

std::vector<std::size_t> by_weights(const std::vector<slot_view>& slots) {
  std::vector<std::size_t> order(slots.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto place = [&](std::size_t chunk) {
    const auto& slot = slots[chunk];
    return std::pair{slot.what != nullptr && slot.what->weights != nullptr, slot.runs_on};
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return place(a) < place(b); });
  return order;
}

}  // namespace

step_layout::step_layout(std::size_t rows) {
  ids_T_.reserve(rows);
  positions_T_.reserve(rows);
  logit_rows_.reserve(rows);
  spans_.reserve(rows);
  groups_.reserve(rows);
  passes_.reserve(rows);
  uses_.reserve(rows);
  uses_of_.reserve(rows);
}

void step_layout::lay_out(const std::vector<step_chunk>& chunks,
                          const std::function<slot_view(const step_chunk&)>& slot_of) {
  ids_T_.clear();
  positions_T_.clear();
  logit_rows_.clear();
  spans_.clear();
  groups_.clear();
  passes_.clear();
  uses_.clear();
  uses_of_.assign(chunks.size(), {});
  std::vector<slot_view> slots;
  slots.reserve(chunks.size());
  for (const auto& chunk : chunks) slots.push_back(slot_of(chunk));
  std::optional<variant_id> last;
  for (const auto index : by_weights(slots)) {
    if (slots[index].runs_on != last) begin_group(slots[index]);
    last = slots[index].runs_on;
    add(index, chunks[index], slots[index]);
  }
}

void step_layout::begin_group(const slot_view& slot) {
  const auto* over = slot.what != nullptr ? slot.what->weights.get() : nullptr;
  if (passes_.empty() || over != nullptr)
    passes_.push_back(
        {over, {ids_T_.size(), 0}, {spans_.size(), 0}, {groups_.size(), 0}, {uses_.size(), 0}});
  auto& here = passes_.back();
  groups_.push_back({static_cast<std::int32_t>(here.rows.count), 0,
                     slot.what != nullptr ? slot.what->adapter.get() : nullptr});
  ++here.groups.count;
}

void step_layout::add(std::size_t index, const step_chunk& chunk, const slot_view& slot) {
  auto& here = passes_.back();
  const auto first_row = static_cast<std::int32_t>(here.rows.count);
  const auto count = static_cast<std::int32_t>(chunk.tokens.size());
  spans_.push_back({first_row, count, chunk.first_position, slot.blocks});
  ++here.spans.count;
  here.rows.count += chunk.tokens.size();
  groups_.back().row_count += count;
  auto& mine = uses_of_[index];
  mine.first = uses_.size();
  for (std::int32_t i = 0; i < count; ++i) {
    ids_T_.push_back(chunk.tokens[static_cast<std::size_t>(i)]);
    positions_T_.push_back(chunk.first_position + i);
    const bool last = i + 1 == count;
    const bool draws = last && chunk.sample;
    if (!draws && !chunk.prompt_logprobs) continue;
    const auto following = static_cast<std::size_t>(chunk.first_position + i) + 1;
    const bool scores = chunk.prompt_logprobs && following < slot.prompt.size();
    if (!draws && !scores) continue;
    logit_rows_.push_back(first_row + i);
    uses_.push_back({index, chunk.first_position + i, draws, scores ? slot.prompt[following] : -1});
  }
  mine.count = uses_.size() - mine.first;
  here.uses.count += mine.count;
}

model::forward_input step_layout::pass(std::size_t index) const {
  const auto& here = passes_.at(index);
  const auto part = [](const auto& list, const range& of) {
    return std::span(list).subspan(of.first, of.count);
  };
  return {.ids_T = part(ids_T_, here.rows),
          .positions_T = part(positions_T_, here.rows),
          .spans = part(spans_, here.spans),
          .logit_rows = part(logit_rows_, here.uses),
          .groups = part(groups_, here.groups),
          .over = here.over,
          .kept_logits = static_cast<std::int64_t>(here.uses.first)};
}

}  // namespace tandem::serve
