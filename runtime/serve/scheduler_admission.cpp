// Who gets a slot, and which blocks: those whose contents are known already, and fresh ones.
#include "runtime/serve/scheduler_state.hpp"

#include <algorithm>
#include <utility>

namespace tandem::serve {

int scheduler::known_tokens(const generation_request& request) const {
  const state& s = *state_;
  if (!s.settings.prefix_cache || !request.use_prefix_cache) return 0;
  const std::span<const token_id> prompt(request.prompt);
  auto hash = memory::hash_seed(s.settings.weights_version, request.variant, request.cache_salt);
  std::size_t known = 0;
  for (; known + positions_per_block < prompt.size(); known += positions_per_block) {
    hash = memory::hash_next(hash, prompt.subspan(known, positions_per_block));
    if (!s.book.holds(hash)) break;
  }
  return static_cast<int>(known);
}

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
  int known = static_cast<int>(s.blocks.size());
  if (s.kv && (!reachable_kv(s) || s.kv->positions() <= known * positions_per_block)) s.kv = {};
  if (s.kv) {
    release_blocks(s, book);
    known = 0;
  }
  const int fresh = blocks_for(s.length()) - known;
  if (book.available() < fresh + static_cast<std::int64_t>(running.size())) {
    release_blocks(s, book);
    return false;
  }
  for (int i = 0; i < fresh; ++i) s.blocks.push_back(*book.allocate());
  s.computed = s.kv ? s.kv->positions() : known * positions_per_block;
  s.published = known;
  const bool all_known = s.kv ? s.kv->publishes() : lender == nullptr || lender->publishes;
  s.publishes = settings.prefix_cache && all_known;
  return true;
}

std::shared_ptr<const memory::kv_memory> scheduler::state::reachable_kv(const sequence& s) const {
  if (!kv || s.kv->weights_version() != settings.weights_version || s.wants_scores() ||
      s.kv->positions() >= s.length())
    return {};
  auto there = s.kv->memory();
  return there && there->fits(*kv) ? there : nullptr;
}

void scheduler::state::copy_kv(sequence& s, step_plan& plan) const {
  s.kv->set_copying(true);
  kv_copy copy{reachable_kv(s), {}};
  for (std::size_t i = 0; i < s.kv->blocks().size(); ++i)
    copy.blocks.emplace_back(s.kv->blocks()[i], s.blocks[i]);
  plan.copies.push_back(std::move(copy));
}

void scheduler::state::take_returned_blocks() {
  for (const auto block : std::exchange(*returned, {})) book.release(block);
  std::erase_if(loans, [](const auto& loan) { return loan.expired(); });
}

bool scheduler::state::call_loans_back() {
  bool any = false;
  for (const auto& out : loans)
    if (const auto loan = out.lock()) any = loan->call_back() || any;
  take_returned_blocks();
  return any;
}

void scheduler::state::start(sequence& s, step_plan& plan) {
  request_state& r = *s.of;
  s.slot = free_slots.back();
  free_slots.pop_back();
  running.insert(std::upper_bound(running.begin(), running.end(), &s, more_urgent{}), &s);
  plan.starts.push_back(
      {s.slot, r.request.variant, r.request.sampling, s.choice, r.request.prompt, s.generated});
  if (s.kv) copy_kv(s, plan);
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
    if (!take_blocks(s, reader) &&
        !(running.empty() && call_loans_back() && take_blocks(s, reader)))
      return;
    it = waiting.erase(it);
    start(s, plan);
  }
}

}  // namespace tandem::serve
