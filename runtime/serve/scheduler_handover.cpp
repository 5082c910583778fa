// Requests that leave for another scheduler, and those that come from one.
#include "runtime/serve/scheduler_state.hpp"

#include <algorithm>
#include <utility>

namespace tandem::serve {
namespace {

handed_request taken_from(request_state& r) {
  handed_request handed;
  handed.added = r.added;
  handed.started = r.started;
  handed.began = r.began;
  handed.queued_ns = r.queued_ns;
  handed.cached_tokens = r.cached_tokens;
  handed.deaths = r.deaths;
  for (sequence& s : r.choices)
    handed.choices.push_back({std::move(s.generated), s.ended, s.scored, std::move(s.kv)});
  handed.request = std::move(r.request);
  return handed;
}

// Nothing was computed for it here, nor is being; what the prefix cache lent counts for nothing.
bool unread(const request_state& r) {
  return std::all_of(r.choices.begin(), r.choices.end(), [](const sequence& s) {
    return s.slot < 0 || (s.flights == 0 && !s.ended && s.announced == 0);
  });
}

}  // namespace

// What it has computed here stays until the next one has copied it. One that has not yet copied
// what it brought passes that on.
void scheduler::state::lend(sequence& s) {
  if (!kv || s.slot < 0 || s.ended || s.computed == 0 || s.kv) return;
  const auto count = static_cast<std::size_t>(blocks_for(s.computed));
  kv_loan::block_list blocks(s.blocks.begin(),
                             s.blocks.begin() + static_cast<std::ptrdiff_t>(count));
  for (const auto block : blocks) book.share(block);
  s.kv = std::make_shared<kv_loan>(kv, std::move(blocks), s.computed, settings.weights_version,
                                   s.publishes, returned);
  loans.push_back(s.kv);
}

void scheduler::set_kv_memory(std::shared_ptr<const memory::kv_memory> memory) {
  state_->kv = std::move(memory);
}

void scheduler::forget_sequences() {
  state& s = *state_;
  s.flights.clear();
  while (!s.running.empty()) {
    sequence& who = *s.running.back();
    who.flights = 0;
    if (who.kv) who.kv->set_copying(false);  // whatever comes of it, nobody reads it
    if (who.ended) {
      s.retire(who);
      continue;
    }
    s.give_back_slot(who);
    if (!who.scored) who.scores.clear();
    s.wait(who);
  }
  s.releases.clear();
  s.free_all_slots();
}

void scheduler::forget_loans() {
  for (const auto& [id, r] : state_->requests)
    for (sequence& s : r->choices) s.kv = nullptr;
}

std::vector<handed_request> scheduler::hand_over_all() {
  for (sequence* who : state_->running) state_->lend(*who);
  forget_sequences();
  state& s = *state_;
  std::vector<request_state*> leaving;
  for (const auto& [id, r] : s.requests) leaving.push_back(r.get());
  std::sort(leaving.begin(), leaving.end(),
            [](const auto* a, const auto* b) { return a->arrival < b->arrival; });
  std::vector<handed_request> handed;
  for (request_state* r : leaving) handed.push_back(taken_from(*r));
  s.waiting.clear();
  s.requests.clear();
  s.not_started = 0;
  s.next_deadline = state::never;
  return handed;
}

std::vector<request_id> scheduler::unread_requests() const {
  std::vector<const sequence*> first;  // choices, of unread requests
  for (const auto& [id, r] : state_->requests)
    if (unread(*r)) first.push_back(&r->choices.front());
  std::sort(first.begin(), first.end(), more_urgent{});
  std::vector<request_id> ids;
  for (const sequence* who : first) ids.push_back(who->request().id);
  return ids;
}

std::vector<request_id> scheduler::running_requests() const {
  ensure(state_->flights.empty(), "who runs is asked while a step does");
  std::vector<request_id> ids;
  for (const sequence* who : state_->running)
    if (ids.empty() || ids.back() != who->request().id) ids.push_back(who->request().id);
  return ids;
}

handed_request scheduler::hand_over(request_id id) {
  state& s = *state_;
  const auto found = s.requests.find(id);
  ensure(found != s.requests.end(), "an unknown request is to leave");
  request_state& r = *found->second;
  ensure(s.flights.empty() || unread(r), "a request in a step is to leave alone");
  for (sequence& choice : r.choices) {
    if (choice.kv) choice.kv->set_copying(false);  // nobody reads what may be copied here
    s.lend(choice);
    if (choice.slot >= 0)
      s.give_back_slot(choice);
    else if (!choice.ended)
      s.waiting.erase(&choice);
  }
  if (!r.started) --s.not_started;
  handed_request handed = taken_from(r);
  s.requests.erase(found);
  return handed;
}

void scheduler::adopt(handed_request handed) {
  state& s = *state_;
  ensure(!s.requests.contains(handed.request.id), "a request comes to where it is");
  ensure(handed.open_choices() > 0, "a request that has ended is handed over");
  ensure(static_cast<std::int64_t>(handed.request.prompt.size()) < longest_sequence(),
         "a request is handed to where it cannot run");
  auto made = std::make_unique<request_state>();
  request_state& r = *made;
  r.request = std::move(handed.request);
  r.arrival = s.arrivals++;
  r.added = handed.added;
  r.started = handed.started;
  r.began = handed.began;
  r.queued_ns = handed.queued_ns;
  r.cached_tokens = handed.cached_tokens;
  r.deaths = handed.deaths;
  r.live = handed.open_choices();
  r.choices.resize(handed.choices.size());
  s.requests.emplace(r.request.id, std::move(made));
  if (!r.started) ++s.not_started;
  for (std::size_t i = 0; i < r.choices.size(); ++i) {
    sequence& choice = r.choices[i];
    choice.of = &r;
    choice.choice = static_cast<int>(i);
    choice.generated = std::move(handed.choices[i].generated);
    choice.scored = handed.choices[i].scored;
    choice.ended = handed.choices[i].ended;
    choice.kv = std::move(handed.choices[i].kv);
    if (!choice.ended) s.wait(choice);
  }
}

std::int64_t scheduler::longest_sequence() const { return state_->longest(); }

bool scheduler::knows(request_id id) const { return state_->requests.contains(id); }

}  // namespace tandem::serve
