#include "runtime/serve/scheduler.hpp"

#include "runtime/serve/prefill_share.hpp"
#include "runtime/serve/sequence.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>
#include <unordered_map>

namespace tandem::serve {
namespace {

constexpr time_ns never = std::numeric_limits<time_ns>::max();

tandem::error timed_out(const request_state& r, time_ns now, bool waiting) {
  return {
      errc::timed_out,
      fmt::format("the request's deadline passed after {} ms{}; ask for less or allow more time",
                  (now - r.added) / 1'000'000, waiting ? ", while it waited in the queue" : ""),
      {}};
}

}  // namespace

struct scheduler::state {
  // What a step in flight does for one sequence.
  struct part {
    sequence* who = nullptr;
    int rows = 0;
    bool sample = false;
    bool scores = false;
  };

  scheduler_settings settings;
  memory::kv_blocks book;
  std::unordered_map<request_id, std::unique_ptr<request_state>> requests;
  std::set<sequence*, more_urgent> waiting;
  std::vector<sequence*> running;  // most urgent first
  std::vector<slot_index> free_slots;
  std::vector<slot_index> releases;  // slots given back since the last plan
  std::vector<part> in_flight;       // empty: none
  std::uint64_t number = 0;          // of the last plan
  std::uint64_t arrivals = 0;
  int not_started = 0;            // requests
  time_ns next_deadline = never;  // no waiting sequence's deadline is earlier
  scheduler_counts totals;

  explicit state(const scheduler_settings& s) : settings(s), book(s.kv_blocks, s.prefix_cache) {
    ensure(s.max_sequences > 0 && s.max_batch_tokens > 0 && s.prefill_chunk_tokens > 0,
           "a scheduler of no slots or no rows");
    ensure(s.context_length > 0 && s.context_length < (1 << 30), "context length out of range");
    free_all_slots();
  }

  // Never more slots than rows, so that every decoding sequence has its row in every step.
  void free_all_slots() {
    free_slots.clear();
    for (int i = std::min(settings.max_sequences, settings.max_batch_tokens); i > 0; --i) {
      free_slots.push_back(i - 1);
    }
  }

  // Tokens one sequence can have: the last needs no block of its own.
  std::int64_t longest() const {
    return std::min(settings.context_length, book.count() * positions_per_block + 1);
  }

  // --- places -----------------------------------------------------------------------------------
  void wait(sequence& s) {
    waiting.insert(&s);
    if (s.request().deadline > 0) next_deadline = std::min(next_deadline, s.request().deadline);
  }

  void give_back_slot(sequence& s) {
    running.erase(std::lower_bound(running.begin(), running.end(), &s, more_urgent{}));
    free_slots.push_back(s.slot);
    releases.push_back(s.slot);
    s.slot = -1;
    release_blocks(s, book);
  }

  // The end of a choice. Its request goes with the last one: `s` is gone then.
  void retire(sequence& s) {
    if (s.slot >= 0) {
      give_back_slot(s);
    } else {
      waiting.erase(&s);
    }
    s.ended = true;
    request_state& r = *s.of;
    if (--r.live > 0) return;
    if (!r.started) --not_started;
    const request_id id = r.request.id;
    requests.erase(id);
  }

  void end_choice(sequence& s) {
    if (s.ended) return;
    if (s.in_flight) {
      s.ended = true;
    } else {
      retire(s);
    }
  }

  void preempt(sequence& s) {
    give_back_slot(s);
    if (!s.scored) s.scores.clear();
    ++totals.preemptions;
    wait(s);
  }

  // --- admission --------------------------------------------------------------------------------
  // A choice whose prompt is read lends its blocks to the others; while one is reading, they wait.
  sequence* reader_of(request_state& r) const {
    sequence* reader = nullptr;
    for (sequence& s : r.choices) {
      if (s.slot < 0 || s.ended) continue;
      if (s.prompt_read()) return &s;
      reader = &s;
    }
    return reader;
  }

  // Blocks whose contents are already what this sequence needs; never all of its tokens, because
  // the last one's logits are wanted.
  std::vector<memory::block_index> known_prefix(sequence& s, const sequence* lender) {
    std::vector<memory::block_index> known;
    if (settings.prefix_cache && s.may_match()) {
      known =
          book.match(s.hashes((s.length() - 1) / positions_per_block, settings.weights_version));
    }
    const int lent = lender == nullptr ? 0 : (s.prompt_length() - 1) / positions_per_block;
    if (lent <= static_cast<int>(known.size())) return known;
    for (auto block = known.rbegin(); block != known.rend(); ++block) book.release(*block);
    known.assign(lender->blocks.begin(), lender->blocks.begin() + lent);
    for (const auto block : known) book.share(block);
    return known;
  }

  // Every block of what is known so far, at once, so that reading it never fails half-way. One
  // block for each running sequence stays free: they can grow before anyone must make room.
  bool take_blocks(sequence& s, const sequence* lender) {
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

  void start(sequence& s, step_plan& plan) {
    request_state& r = *s.of;
    s.slot = free_slots.back();
    free_slots.pop_back();
    running.insert(std::upper_bound(running.begin(), running.end(), &s, more_urgent{}), &s);
    plan.starts.push_back({s.slot, r.request.sampling, s.choice, r.request.prompt, s.generated});
    if (!r.started) --not_started;
    r.started = true;
  }

  void admit(step_plan& plan) {
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

  // --- a step -----------------------------------------------------------------------------------
  void add_chunk(sequence& s, int rows, time_ns now, step_plan& plan) {
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
    chunk.new_blocks.assign(s.blocks.begin() + s.announced, s.blocks.end());
    s.announced = static_cast<int>(s.blocks.size());
    chunk.sample = rows == s.remaining() && s.request().stops.max_tokens > 0;
    chunk.prompt_logprobs = s.wants_scores();
    if (chunk.sample) chunk.banned = banned_ids(s);
    s.in_flight = true;
    in_flight.push_back({&s, rows, chunk.sample, chunk.prompt_logprobs});
    plan.chunks.push_back(std::move(chunk));
  }

  // One row for each sequence that decodes, the most urgent first. Who is put off to make room is
  // always the last of `running`: one that has no row yet, or the asking one itself.
  bool plan_decodes(time_ns now, step_plan& plan) {
    bool preempted = false;
    for (std::size_t i = 0; i < running.size(); ++i) {
      sequence& s = *running[i];
      if (!s.decoding()) continue;
      while (s.slot >= 0 && blocks_for(s.length()) > static_cast<int>(s.blocks.size())) {
        if (const auto block = book.allocate()) {
          s.blocks.push_back(*block);
          continue;
        }
        ensure(running.size() > 1, "a sequence alone ran out of blocks it was promised");
        preempt(*running.back());
        preempted = true;
      }
      if (s.slot >= 0) add_chunk(s, 1, now, plan);
    }
    return preempted;
  }

  // Blocks that others have published since this sequence was admitted need not be read again:
  // of many prompts with one beginning that arrive together, one reads it.
  void match_further(sequence& s) {
    if (!s.publishes || !s.may_match() || s.computed % positions_per_block != 0) return;
    const int limit = (s.length() - 1) / positions_per_block;
    const int from = s.computed / positions_per_block;
    if (from >= limit) return;
    const auto found = book.match(
        s.hashes(limit, settings.weights_version).subspan(static_cast<std::size_t>(from)));
    for (std::size_t i = 0; i < found.size(); ++i) {
      auto& mine = s.blocks[static_cast<std::size_t>(from) + i];
      book.release(mine);
      mine = found[i];
    }
    s.computed += static_cast<int>(found.size()) * positions_per_block;
    s.published = std::max(s.published, s.computed / positions_per_block);
  }

  // Who would read in this step what somebody more urgent reads in it leaves the rows to others.
  static bool let_followers_wait(std::span<sequence* const> readers, std::span<const int> rows,
                                 std::vector<reading>& shares) {
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

  void plan_prompts(time_ns now, step_plan& plan) {
    const int decoding = static_cast<int>(plan.chunks.size());
    const int room = settings.max_batch_tokens - decoding;
    const int budget = decoding > 0 ? std::min(settings.prefill_chunk_tokens, room) : room;
    std::vector<sequence*> readers;
    std::vector<reading> shares;
    for (sequence* s : running) {
      if (s->in_flight) continue;  // it decodes; one just come back may be one row short of that
      // The device is told of blocks once, so only what it has not seen can still be exchanged.
      if (s->announced == 0) match_further(*s);
      readers.push_back(s);
      shares.push_back({s->request().priority, s->remaining()});
    }
    std::vector<int> rows = share_rows(shares, budget);
    if (let_followers_wait(readers, rows, shares)) rows = share_rows(shares, budget);
    for (std::size_t i = 0; i < readers.size(); ++i) {
      if (rows[i] > 0) add_chunk(*readers[i], rows[i], now, plan);
    }
  }

  // --- what came of it --------------------------------------------------------------------------
  void publish_full_blocks(sequence& s) {
    if (!s.publishes) return;
    const int full = s.computed / positions_per_block;
    const auto hashes = s.hashes(full, settings.weights_version);
    for (int b = s.published; b < full; ++b) {
      book.publish(s.blocks[static_cast<std::size_t>(b)], hashes[static_cast<std::size_t>(b)]);
    }
    s.published = std::max(s.published, full);
  }

  sequence_event event_of(const sequence& s) const {
    sequence_event e;
    e.id = s.request().id;
    e.choice = s.choice;
    e.prompt_tokens = s.prompt_length();
    e.cached_tokens = s.of->cached_tokens;
    e.completion_tokens = static_cast<int>(s.generated.size());
    e.queued_ns = s.of->queued_ns;
    return e;
  }

  void append(sequence& s, const token_logprob& token, sequence_event& e) {
    const stop_conditions& stops = s.request().stops;
    const bool may_end = static_cast<int>(s.generated.size()) >= stops.min_tokens;
    s.generated.push_back(token.id);
    ++totals.tokens_generated;
    e.completion_tokens = static_cast<int>(s.generated.size());
    if (may_end && is_end(stops, token.id)) {
      e.finish = finish_reason::stop;
      e.stop_token = token.id;
      return;
    }
    e.tokens.push_back(token);
    if (e.completion_tokens >= stops.max_tokens || s.length() >= longest()) {
      e.finish = finish_reason::length;
    }
  }

  void fail_if_late(const sequence& s, time_ns now, sequence_event& e) const {
    const time_ns deadline = s.request().deadline;
    if (deadline <= 0 || now < deadline || e.finish != finish_reason::none) return;
    e.finish = finish_reason::error;
    e.failure = timed_out(*s.of, now, s.slot < 0);
  }
};

scheduler::scheduler(const scheduler_settings& settings)
    : state_(std::make_unique<state>(settings)) {}
scheduler::~scheduler() = default;

result<void> scheduler::add(generation_request request, time_ns now) {
  state& s = *state_;
  const auto prompt = static_cast<std::int64_t>(request.prompt.size());
  if (prompt == 0) {
    return tandem::error{errc::bad_request, "the prompt is empty: nothing to continue", "prompt"};
  }
  if (request.choices < 1) {
    return tandem::error{errc::bad_request,
                         fmt::format("{} choices asked for: at least 1", request.choices), "n"};
  }
  const std::int64_t least = prompt + (request.stops.max_tokens > 0 ? 1 : 0);
  const std::int64_t memory = s.book.count() * positions_per_block;
  if (least > s.settings.context_length || prompt > memory) {
    const std::int64_t most = std::min(s.settings.context_length, memory);
    return tandem::error{
        errc::context_length_exceeded,
        fmt::format("This model's maximum context length is {} tokens{}. However, you requested {} "
                    "tokens ({} in the messages, {} in the completion). Please reduce the length "
                    "of the messages or completion.",
                    most, memory < s.settings.context_length ? " (all its KV memory)" : "",
                    prompt + request.stops.max_tokens, prompt, request.stops.max_tokens),
        "prompt"};
  }
  if (s.not_started >= s.settings.max_queued) {
    return tandem::error{errc::overloaded,
                         fmt::format("{} of {} places in the queue are taken, {} sequences run; "
                                     "try again later",
                                     s.not_started, s.settings.max_queued, s.running.size()),
                         {}};
  }
  if (s.requests.contains(request.id)) {
    return tandem::error{
        errc::conflict, fmt::format("request {} is already known", request.id), {}};
  }
  auto made = std::make_unique<request_state>();
  request_state& r = *made;
  r.request = std::move(request);
  r.arrival = s.arrivals++;
  r.added = now;
  r.live = r.request.choices;
  r.choices.resize(static_cast<std::size_t>(r.live));
  s.requests.emplace(r.request.id, std::move(made));
  ++s.not_started;
  for (int i = 0; i < r.live; ++i) {
    sequence& choice = r.choices[static_cast<std::size_t>(i)];
    choice.of = &r;
    choice.choice = i;
    s.wait(choice);
  }
  return {};
}

void scheduler::cancel(request_id id) {
  const auto found = state_->requests.find(id);
  if (found == state_->requests.end()) return;
  request_state& r = *found->second;
  // The request goes with its last choice, so no choice may be touched after that.
  for (int i = 0, left = r.live, n = r.request.choices; i < n && left > 0; ++i) {
    sequence& s = r.choices[static_cast<std::size_t>(i)];
    if (s.ended && !s.in_flight) continue;
    --left;
    state_->end_choice(s);
  }
}

void scheduler::finish_choice(request_id id, int choice) {
  const auto found = state_->requests.find(id);
  if (found == state_->requests.end()) return;
  auto& choices = found->second->choices;
  if (choice < 0 || static_cast<std::size_t>(choice) >= choices.size()) return;
  state_->end_choice(choices[static_cast<std::size_t>(choice)]);
}

step_plan scheduler::schedule(time_ns now) {
  state& s = *state_;
  ensure(s.in_flight.empty(), "a second step while one is in flight");
  step_plan plan;
  const bool preempted = s.plan_decodes(now, plan);
  if (!preempted) s.admit(plan);
  s.plan_prompts(now, plan);
  if (plan.chunks.empty()) {
    ensure(s.running.empty() && s.waiting.empty(), "there is work and nobody has a row");
    return plan;
  }
  plan.number = ++s.number;
  plan.releases.swap(s.releases);
  return plan;
}

std::vector<sequence_event> scheduler::complete(const step_result& done, time_ns now) {
  state& s = *state_;
  std::vector<sequence_event> events;
  if (s.in_flight.empty() || done.number != s.number) return events;  // of a step that was lost
  std::vector<sequence*> over;
  std::size_t next_sample = 0;
  std::size_t next_scores = 0;
  for (const state::part& part : std::exchange(s.in_flight, {})) {
    sequence& who = *part.who;
    who.in_flight = false;
    const token_logprob* token = nullptr;
    if (part.sample) {
      ensure(next_sample < done.sampled.size() && done.sampled[next_sample].slot == who.slot,
             "a step result that does not fit its plan");
      token = &done.sampled[next_sample++].token;
    }
    const prompt_scores* scores = nullptr;
    if (part.scores && next_scores < done.prompt.size() &&
        done.prompt[next_scores].slot == who.slot) {
      scores = &done.prompt[next_scores++];
    }
    if (who.ended) {
      over.push_back(&who);
      continue;
    }
    if (!who.prompt_read()) {
      s.totals.prompt_tokens_computed += static_cast<std::uint64_t>(part.rows);
    }
    who.computed += part.rows;
    s.publish_full_blocks(who);
    if (scores != nullptr) {
      who.scores.insert(who.scores.end(), scores->scores.begin(), scores->scores.end());
    }
    sequence_event e = s.event_of(who);
    if (part.scores && who.prompt_read()) {
      ensure(static_cast<int>(who.scores.size()) == who.prompt_length() - 1,
             "a prompt's scores are not one for each token after the first");
      e.prompt_logprobs = std::exchange(who.scores, {});
      who.scored = true;
    }
    if (token != nullptr) {
      s.append(who, *token, e);
    } else if (who.remaining() == 0) {
      e.finish = finish_reason::length;  // max_tokens 0: only the prompt was to be read
    }
    s.fail_if_late(who, now, e);
    if (e.finish != finish_reason::none) over.push_back(&who);
    const bool news = !e.tokens.empty() || !e.prompt_logprobs.empty();
    if (news || e.finish != finish_reason::none) events.push_back(std::move(e));
  }
  for (sequence* who : over) s.retire(*who);
  // Those that had no row in this step.
  for (std::size_t i = s.running.size(); i-- > 0;) {
    sequence_event e = s.event_of(*s.running[i]);
    s.fail_if_late(*s.running[i], now, e);
    if (e.finish == finish_reason::none) continue;
    s.retire(*s.running[i]);
    events.push_back(std::move(e));
  }
  return events;
}

void scheduler::device_lost() {
  state& s = *state_;
  s.in_flight.clear();
  while (!s.running.empty()) {
    sequence& who = *s.running.back();
    who.in_flight = false;
    if (who.ended) {
      s.retire(who);
      continue;
    }
    s.give_back_slot(who);
    who.scores.clear();
    s.wait(who);
  }
  s.releases.clear();
  s.free_all_slots();
  s.book.forget_cached();
}

std::vector<sequence_event> scheduler::expire(time_ns now) {
  state& s = *state_;
  std::vector<sequence_event> events;
  if (now < s.next_deadline) return events;
  s.next_deadline = never;
  std::vector<sequence*> late;
  for (sequence* who : s.waiting) {
    const time_ns deadline = who->request().deadline;
    if (deadline <= 0) continue;
    if (now >= deadline) {
      late.push_back(who);
    } else {
      s.next_deadline = std::min(s.next_deadline, deadline);
    }
  }
  for (sequence* who : late) {
    events.push_back(s.event_of(*who));
    s.fail_if_late(*who, now, events.back());
    s.retire(*who);
  }
  return events;
}

bool scheduler::idle() const {
  return state_->waiting.empty() && state_->running.empty() && state_->in_flight.empty();
}

scheduler_counts scheduler::counts() const {
  scheduler_counts c = state_->totals;
  c.queued = static_cast<int>(state_->waiting.size());
  c.running = static_cast<int>(state_->running.size());
  c.blocks_total = state_->book.count();
  c.blocks_free = state_->book.available();
  c.blocks_cached = state_->book.cached();
  return c;
}

void scheduler::set_weights_version(std::uint64_t version) {
  if (version == state_->settings.weights_version) return;
  state_->settings.weights_version = version;
  // What runs has keys and values of both versions from here on: nobody else may read them.
  for (sequence* s : state_->running) s->publishes = false;
}

}  // namespace tandem::serve
