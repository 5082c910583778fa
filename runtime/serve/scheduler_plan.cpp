// Whose rows make up a step: one for each sequence that decodes, then prompts.
#include "runtime/serve/scheduler_state.hpp"

#include <algorithm>
#include <utility>

namespace tandem::serve {
namespace {

// So many of `rows` fit with the logits that are left in this step; takes them off. The first
// reader always finds one left: there are no more slots than logits.
int within_logits(const sequence& s, int rows, int& logits) {
  if (s.wants_scores()) {
    rows = std::min(rows, logits);
    logits -= rows;
  } else if (rows == s.remaining()) {
    if (logits > 0) {
      --logits;
    } else {
      --rows;
    }
  }
  return rows;
}

}  // namespace

void scheduler::state::add_chunk(sequence& s, int rows, time_ns now, step_plan& plan) {
  request_state& r = *s.of;
  if (!r.began) {
    r.queued_ns = now - r.added;
    r.cached_tokens = s.computed;
    totals.prompt_tokens_cached += static_cast<std::uint64_t>(s.computed);
  }
  r.began = true;
  step_chunk chunk;
  chunk.slot = s.slot;
  chunk.first_position = s.computed;
  chunk.tokens.reserve(static_cast<std::size_t>(rows));
  for (int p = s.computed; p < s.computed + rows; ++p) chunk.tokens.push_back(s.token(p));
  chunk.sample = rows == s.remaining() && s.request().stops.max_tokens > 0;
  chunk.prompt_logprobs = s.wants_scores();
  if (chunk.sample) chunk.banned = banned_ids(s);
  put(s, std::move(chunk), plan);
}

void scheduler::state::put(sequence& s, step_chunk chunk, step_plan& plan) {
  const int announced_before = s.announced;
  chunk.new_blocks.assign(s.blocks.begin() + s.announced, s.blocks.end());
  s.announced = static_cast<int>(s.blocks.size());
  ++s.flights;
  planned.push_back({&s, static_cast<int>(chunk.tokens.size()), chunk.sample, chunk.prompt_logprobs,
                     announced_before});
  plan.chunks.push_back(std::move(chunk));
}

bool scheduler::state::plan_decodes(time_ns now, step_plan& plan) {
  bool preempted = false;
  for (std::size_t i = 0; i < running.size(); ++i) {
    sequence& s = *running[i];
    if (!s.decoding() || is_suspect(s)) continue;
    while (s.slot >= 0 && blocks_for(s.length()) > static_cast<int>(s.blocks.size())) {
      if (const auto block = book.allocate()) {
        s.blocks.push_back(*block);
        continue;
      }
      if (call_loans_back()) continue;
      ensure(running.size() > 1 || !loans.empty(),
             "a sequence alone ran out of blocks it was promised");
      preempt(*running.back());
      preempted = true;
    }
    if (s.slot >= 0) add_chunk(s, 1, now, plan);
  }
  return preempted;
}

void scheduler::state::match_further(sequence& s) {
  if (!s.publishes || !s.may_match() || s.computed % positions_per_block != 0) return;
  const int limit = (s.length() - 1) / positions_per_block;
  const int from = s.computed / positions_per_block;
  if (from >= limit) return;
  const auto found =
      book.match(s.hashes(limit, settings.weights_version).subspan(static_cast<std::size_t>(from)));
  for (std::size_t i = 0; i < found.size(); ++i) {
    auto& mine = s.blocks[static_cast<std::size_t>(from) + i];
    book.release(mine);
    mine = found[i];
  }
  s.computed += static_cast<int>(found.size()) * positions_per_block;
  s.published = std::max(s.published, s.computed / positions_per_block);
}

bool scheduler::state::let_followers_wait(std::span<sequence* const> readers,
                                          std::span<const int> rows, std::vector<reading>& shares) {
  std::vector<const sequence*> leaders;
  bool any = false;
  for (std::size_t i = 0; i < readers.size(); ++i) {
    const sequence& s = *readers[i];
    if (std::any_of(leaders.begin(), leaders.end(),
                    [&](const sequence* leader) { return follows(s, *leader); })) {
      shares[i].remaining = 0;
      any = true;
    } else if (rows[i] > 0) {
      leaders.push_back(&s);
    }
  }
  return any;
}

void scheduler::state::plan_prompts(time_ns now, step_plan& plan, bool alone) {
  const int decoding = static_cast<int>(plan.chunks.size());
  const int room = settings.max_batch_tokens - decoding;
  planned_decoding = decoding;
  std::vector<sequence*> readers;
  std::vector<reading> shares;
  for (sequence* s : running) {
    if (s->flights > 0) continue;  // it decodes; one just come back may be one row short of that
    if (is_suspect(*s) != alone) continue;
    // The device is told of blocks once, so only what it has not seen can still be exchanged.
    if (s->announced == 0) match_further(*s);
    readers.push_back(s);
    shares.push_back({s->request().priority, s->remaining()});
    if (alone) break;
  }
  const int readers_now = static_cast<int>(readers.size());
  const int budget = decoding > 0 ? std::min(pace.rows_allowed(decoding, readers_now), room) : room;
  std::vector<int> rows = share_rows(shares, budget);
  if (let_followers_wait(readers, rows, shares)) rows = share_rows(shares, budget);
  int logits = settings.max_logit_rows - decoding;
  for (std::size_t i = 0; i < readers.size(); ++i) {
    const int possible = within_logits(*readers[i], rows[i], logits);
    if (possible > 0) add_chunk(*readers[i], possible, now, plan);
  }
}

void scheduler::state::plan_rows(time_ns now, step_plan& plan, bool alone) {
  const bool preempted = !alone && plan_decodes(now, plan);
  if (!preempted) admit(plan);
  plan_prompts(now, plan, alone);
}

void scheduler::state::take_off(step_plan& plan) {
  plan.number = ++number;
  plan.releases.swap(releases);
  flights.push_back({plan.number, std::exchange(planned, {}), planned_decoding, plan.releases});
}

bool scheduler::state::ends_by_length(const sequence& s) const {
  return static_cast<int>(s.generated.size()) + 1 >= s.request().stops.max_tokens ||
         s.length() + 1 >= longest();
}

bool scheduler::state::goes_on_alike() const {
  if (flights.size() != 1 || flights.front().parts.size() != running.size()) return false;
  for (const part& p : flights.front().parts) {
    const sequence& s = *p.who;
    if (!p.sample || p.scores || s.kv || is_suspect(s)) return false;
    // Whoever waits gets its place.
    if (!waiting.empty() && (s.ended || ends_by_length(s))) return false;
  }
  return true;
}

void scheduler::state::add_row_ahead(sequence& s, step_plan& plan) {
  step_chunk chunk;
  chunk.slot = s.slot;
  chunk.first_position = s.length();
  chunk.tokens = {drawn_before};
  chunk.sample = true;
  chunk.banned = banned_ids(s, 1);
  put(s, std::move(chunk), plan);
}

}  // namespace tandem::serve
