#include "runtime/serve/scheduler.hpp"

#include "runtime/serve/scheduler_state.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::serve {

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
    if (s.ended && s.flights == 0) continue;
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
  ensure(s.flights.empty(), "a second step while one is in flight");
  s.take_returned_blocks();
  step_plan plan;
  s.suspects_turn = !s.suspects_turn;
  s.plan_rows(now, plan, s.suspects_turn);
  if (plan.chunks.empty()) {
    s.suspects_turn = !s.suspects_turn;
    s.plan_rows(now, plan, s.suspects_turn);
  }
  if (plan.chunks.empty()) {
    ensure((s.running.empty() && s.waiting.empty()) || !s.loans.empty(),
           "there is work and nobody has a row");
    return plan;
  }
  s.take_off(plan);
  return plan;
}

std::optional<step_plan> scheduler::schedule_ahead() {
  state& s = *state_;
  if (!s.goes_on_alike() || wants_place()) return std::nullopt;
  std::vector<sequence*> going;
  for (const state::part& p : s.flights.front().parts)
    if (!p.who->ended && !s.ends_by_length(*p.who)) going.push_back(p.who);
  if (going.empty()) return std::nullopt;
  for (sequence* who : going) {
    // The token that is being drawn has its position behind the last one's.
    while (blocks_for(who->length() + 1) > static_cast<int>(who->blocks.size())) {
      const auto block = s.book.allocate();
      if (!block) return std::nullopt;
      who->blocks.push_back(*block);
    }
  }
  step_plan plan;
  plan.follows = s.flights.front().number;
  for (sequence* who : going) s.add_row_ahead(*who, plan);
  s.planned_decoding = static_cast<int>(going.size());
  s.take_off(plan);
  return plan;
}

bool scheduler::wants_place() const {
  return !state_->waiting.empty() && !state_->free_slots.empty();
}

bool scheduler::ahead_for_nothing() const {
  const auto& flights = state_->flights;
  return flights.size() > 1 && std::ranges::all_of(flights.back().parts, [](const auto& part) {
           return part.who->ended;
         });
}

void scheduler::take_back(std::uint64_t number) {
  state& s = *state_;
  while (!s.flights.empty() && s.flights.back().number >= number) {
    const auto back = std::move(s.flights.back());
    s.flights.pop_back();
    s.releases.insert(s.releases.begin(), back.releases.begin(), back.releases.end());
    for (const state::part& p : back.parts) {
      p.who->announced = p.announced_before;
      --p.who->flights;
      if (p.who->ended && p.who->flights == 0) s.retire(*p.who);
    }
  }
}

std::vector<request_id> scheduler::device_lost() {
  state& s = *state_;
  std::set<request_id> in_step;
  for (const auto& flight : s.flights)
    for (const auto& part : flight.parts)
      if (in_step.insert(part.who->request().id).second) ++part.who->of->deaths;
  forget_sequences();
  s.book.forget_cached();
  std::vector<request_id> given_up;
  for (const auto id : in_step)
    if (const auto found = s.requests.find(id);
        found != s.requests.end() && found->second->deaths >= deaths_max)
      given_up.push_back(id);
  return given_up;
}

std::vector<sequence_event> scheduler::expire(time_ns now) {
  state& s = *state_;
  std::vector<sequence_event> events;
  if (now < s.next_deadline) return events;
  s.next_deadline = state::never;
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
  return state_->waiting.empty() && state_->running.empty() && state_->flights.empty();
}

int scheduler::sequences() const {
  return static_cast<int>(state_->waiting.size() + state_->running.size());
}

bool scheduler::reads_prompts() const {
  const state& s = *state_;
  if (!s.waiting.empty()) return true;
  return std::any_of(s.running.begin(), s.running.end(), [&](const sequence* who) {
    if (who->flights == 0) return !who->ended && !who->decoding();
    const auto& parts = s.flights.front().parts;
    const auto part = std::find_if(parts.begin(), parts.end(),
                                   [&](const state::part& p) { return p.who == who; });
    if (part == parts.end()) return false;  // it has a row ahead
    return part->rows < who->remaining();
  });
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

// --- places
// ---------------------------------------------------------------------------------------

// Never more slots than rows or logits of a step, so that every decoding sequence has its row in
// every step.
scheduler::state::state(const scheduler_settings& s)
    : settings(s), book(s.kv_blocks, s.prefix_cache), pace(s.prefill_chunk_tokens) {
  ensure(s.max_sequences > 0 && s.max_batch_tokens > 0 && s.prefill_chunk_tokens > 0 &&
             s.max_logit_rows > 0,
         "a scheduler of no slots or no rows");
  ensure(s.context_length > 0 && s.context_length < (1 << 30), "context length out of range");
  settings.max_sequences = std::min({s.max_sequences, s.max_batch_tokens, s.max_logit_rows});
  free_all_slots();
}

void scheduler::state::free_all_slots() {
  free_slots.clear();
  for (slot_index i = settings.max_sequences; i > 0; --i) free_slots.push_back(i - 1);
}

std::int64_t scheduler::state::longest() const {
  return std::min(settings.context_length, book.count() * positions_per_block + 1);
}

void scheduler::state::wait(sequence& s) {
  waiting.insert(&s);
  if (s.request().deadline > 0) next_deadline = std::min(next_deadline, s.request().deadline);
}

void scheduler::state::give_back_slot(sequence& s) {
  running.erase(std::lower_bound(running.begin(), running.end(), &s, more_urgent{}));
  free_slots.push_back(s.slot);
  releases.push_back(s.slot);
  s.slot = -1;
  release_blocks(s, book);
}

void scheduler::state::retire(sequence& s) {
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

void scheduler::state::end_choice(sequence& s) {
  if (s.ended) return;
  retire_when_landed(s);
}

void scheduler::state::retire_when_landed(sequence& s) {
  s.ended = true;
  if (s.flights == 0) retire(s);
}

void scheduler::state::preempt(sequence& s) {
  give_back_slot(s);
  if (!s.scored) s.scores.clear();
  ++totals.preemptions;
  wait(s);
}

}  // namespace tandem::serve
