// Who gets a slot, and which blocks: those whose contents are known already, and fresh ones.
#include "runtime/serve/scheduler_state.hpp"

#include <algorithm>

namespace tandem::serve {

sequence* scheduler::state::reader_of(request_state& r) const {
  sequence* reader = nullptr;
  for (sequence& s : r.choices) {
    if (s.slot < 0 || s.ended) continue;
    if (s.prompt_read()) return &s;
    reader = &s;
  }
  return reader;
}

std::vector<memory::block_index> scheduler::state::known_prefix(sequence& s,
                                                                const sequence* lender) {
  std::vector<memory::block_index> known;
  if (settings.prefix_cache && s.may_match()) {
    known = book.match(s.hashes((s.length() - 1) / positions_per_block, settings.weights_version));
  }
  const int lent = lender == nullptr ? 0 : (s.prompt_length() - 1) / positions_per_block;
  if (lent <= static_cast<int>(known.size())) return known;
  for (auto block = known.rbegin(); block != known.rend(); ++block) book.release(*block);
  known.assign(lender->blocks.begin(), lender->blocks.begin() + lent);
  for (const auto block : known) book.share(block);
  return known;
}

bool scheduler::state::take_blocks(sequence& s, const sequence* lender) {
  s.blocks = known_prefix(s, lender);
  const int known = static_cast<int>(s.blocks.size());
  const int fresh = blocks_for(s.length()) - known;
  if (book.available() < fresh + static_cast<std::int64_t>(running.size())) {
    release_blocks(s, book);
    return false;
  }
  for (int i = 0; i < fresh; ++i) s.blocks.push_back(*book.allocate());
  s.computed = known * positions_per_block;
  s.published = known;
  s.publishes = settings.prefix_cache && (lender == nullptr || lender->publishes);
  return true;
}

void scheduler::state::start(sequence& s, step_plan& plan) {
  request_state& r = *s.of;
  s.slot = free_slots.back();
  free_slots.pop_back();
  running.insert(std::upper_bound(running.begin(), running.end(), &s, more_urgent{}), &s);
  plan.starts.push_back(
      {s.slot, r.request.variant, r.request.sampling, s.choice, r.request.prompt, s.generated});
  if (!r.started) --not_started;
  r.started = true;
}

void scheduler::state::admit(step_plan& plan) {
  for (auto it = waiting.begin(); it != waiting.end() && !free_slots.empty();) {
    sequence& s = **it;
    sequence* reader = reader_of(*s.of);
    if (reader != nullptr && !reader->prompt_read()) {
      it = waiting.upper_bound(&s.of->choices.back());
      continue;
    }
    if (!take_blocks(s, reader)) return;
    it = waiting.erase(it);
    start(s, plan);
  }
}

}  // namespace tandem::serve
