// What a step's result means for each sequence in it.
#include "runtime/serve/scheduler_state.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::serve {
namespace {

tandem::error timed_out(const request_state& r, time_ns now, bool waiting) {
  return {
      errc::timed_out,
      fmt::format("the request's deadline passed after {} ms{}; ask for less or allow more time",
                  (now - r.added) / 1'000'000, waiting ? ", while it waited in the queue" : ""),
      {}};
}

}  // namespace

void scheduler::state::publish_full_blocks(sequence& s) {
  if (!s.publishes) return;
  const int full = s.computed / positions_per_block;
  const auto hashes = s.hashes(full, settings.weights_version);
  for (int b = s.published; b < full; ++b) {
    book.publish(s.blocks[static_cast<std::size_t>(b)], hashes[static_cast<std::size_t>(b)]);
  }
  s.published = std::max(s.published, full);
}

sequence_event scheduler::state::event_of(const sequence& s) const {
  sequence_event e;
  e.id = s.request().id;
  e.choice = s.choice;
  e.prompt_tokens = s.prompt_length();
  e.cached_tokens = s.of->cached_tokens;
  e.completion_tokens = static_cast<int>(s.generated.size());
  e.queued_ns = s.of->queued_ns;
  return e;
}

void scheduler::state::append(sequence& s, const token_logprob& token, sequence_event& e) {
  const stop_conditions& stops = s.request().stops;
  const bool may_end = static_cast<int>(s.generated.size()) >= stops.min_tokens;
  s.generated.push_back(token.id);
  s.of->deaths = 0;
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

void scheduler::state::fail_if_late(const sequence& s, time_ns now, sequence_event& e) const {
  const time_ns deadline = s.request().deadline;
  if (deadline <= 0 || now < deadline || e.finish != finish_reason::none) return;
  e.finish = finish_reason::error;
  e.failure = timed_out(*s.of, now, s.slot < 0);
}

std::vector<sequence_event> scheduler::complete(const step_result& done, time_ns now) {
  state& s = *state_;
  std::vector<sequence_event> events;
  if (s.flights.empty() || done.number != s.flights.front().number)
    return events;  // of a step that was lost
  const auto landed = std::move(s.flights.front());
  s.flights.pop_front();
  int rows = 0;
  for (const state::part& part : landed.parts) rows += part.rows;
  s.pace.step_done(landed.decoding, rows - landed.decoding, done.device_ns);
  std::vector<sequence*> over;
  std::size_t next_sample = 0;
  std::size_t next_scores = 0;
  for (const state::part& part : landed.parts) {
    sequence& who = *part.who;
    --who.flights;
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
  for (sequence* who : s.running) who->kv.reset();  // it is copied
  for (sequence* who : over) s.retire_when_landed(*who);
  // Those that had no row in this step.
  for (std::size_t i = s.running.size(); i-- > 0;) {
    if (s.running[i]->flights > 0) continue;
    sequence_event e = s.event_of(*s.running[i]);
    s.fail_if_late(*s.running[i], now, e);
    if (e.finish == finish_reason::none) continue;
    s.retire(*s.running[i]);
    events.push_back(std::move(e));
  }
  return events;
}

}  // namespace tandem::serve
