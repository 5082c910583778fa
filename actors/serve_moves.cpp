// Devices that come and go while requests run. A lane whose device is given back hands its requests
// to other lanes, which go on from prompt and sent tokens: to the client a pause, never a gap or a
// repeat. Keys and values go along where both devices are of one process or of one machine's
// workers (kv_loan.hpp); else they are computed again. What nobody else can take is finished first.
// The model stays in the memory of a device that was given away, so that a lane that comes back
// goes on at once.
#include "actors/fault.hpp"
#include "actors/serve_parts.hpp"
#include "runtime/serve/placement.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

namespace tandem::actors::serving {
namespace {

constexpr auto lends_at_most = std::chrono::seconds(1);  // after the last step

int sequences_of(const lane& l) { return l.scheduler->sequences(); }

// Fewer sequences first; of equals one that does not train beside them.
auto fullness(const lane& l) {
  return std::pair{sequences_of(l), l.held.held_as == lease::role::shared};
}

// May this lane go on with a request that began on `from`?
bool can_take(const serve_state& state, const lane& l, const lane& from, const live_request& live) {
  if (&l == &from || !serves_now(l) || l.leaving) return false;
  const auto* version = state.versions.find(live.variant);
  const bool has_it =
      live.variant == 0 || (version != nullptr && version->devices.contains(l.held.device));
  return has_it && l.scheduler->longest_sequence() >=
                       std::min(from.scheduler->longest_sequence(), live.tokens_most);
}

// Can one copy the other's keys and values?
bool same_memory(const lane& a, const lane& b) {
  return a.model && b.model && a.model->kv && b.model->kv && a.model->kv->fits(*b.model->kv);
}

lane* taker_for(serve_state& state, const lane& from, const live_request& live) {
  lane* best = nullptr;
  for (auto& [name, l] : state.lanes)
    if (can_take(state, l, from, live) && (!best || fullness(l) < fullness(*best))) best = &l;
  return best;
}

bool has_requests(const serve_state& state, const lane& l) {
  return std::any_of(state.requests.begin(), state.requests.end(),
                     [&](const auto& entry) { return entry.second.lane == l.held.device; });
}

void forget_on_device(self_pointer self, lane& l) {
  no_step(l);
  self->request(l.device, self->state.options.step_deadline, forget_sequences{l.held.serve_since})
      .then([] {},
            [name = l.held.device](const caf::error& why) {
              log_debug("device {}: forgetting sequences: {}", name, from_caf(why).detail);
            });
}

// Nothing of ours runs there any more.
void rest(self_pointer self, lane& l) {
  l.resting = true;
  l.held.held_as = lease::role::idle;
  l.lost_at = self->clock().now();
}

// Whoever has its requests now has not copied yet what they had here, in a process that may end.
bool lends(const lane& l) {
  if (!l.scheduler || !l.model || !l.model->kv || !l.model->kv->place) return false;
  const auto counts = l.scheduler->counts();
  return counts.blocks_free < counts.blocks_total;
}

// Rests and answers once everything is out.
void try_to_leave(self_pointer self, lane& l) {
  if (!l.leaving) return;
  l.leaving->done.handed_over += hand_requests_over(self, l);
  if (l.in_flight || (l.scheduler && !l.scheduler->idle())) return;
  if (lends(l) && self->clock().now() - l.step_began < lends_at_most) return keep_ticking(self);
  auto leaving = *std::exchange(l.leaving, std::nullopt);
  rest(self, l);
  leaving.answer.deliver(leaving.done);
}

// The device is ours (still, or again), and the model in its memory or on its way there.
void go_on(self_pointer self, lane& l, const lease::lease& now) {
  const bool other_tenure = l.held.serve_since != now.serve_since;
  end_departure(l, {errc::cancelled, "device " + now.device + " serves on", ""});
  l.resting = false;
  l.held = now;
  if (other_tenure) {
    no_step(l);
    if (l.scheduler) l.scheduler->forget_sequences();
  }
  if (!l.model && !l.loading) return bring_up(self, l);
  take_share(self, l);
  pump(self, l);
  report_change(self);
}

}  // namespace

void read_again(self_pointer self, lane& l) {
  forget_on_device(self, l);
  l.scheduler->forget_sequences();
  l.scheduler->forget_loans();
  pump(self, l);
}

bool serves_now(const lane& l) { return l.device && l.model && l.scheduler && !l.resting; }

// Of the lanes that serve the one with least to do for it: few sequences, or its prompt's beginning
// known (placement.hpp). Else one that is about to leave and will finish it first; a lost one only
// when there is no other (its device is on its way back), a resting one last.
lane* choose_lane(serve_state& state, const serve::generation_request& request) {
  const int places = state.options.load.max_sequences;
  const auto rank = [&](const lane& l) {
    const int place = l.resting ? 3 : !serves_now(l) ? 2 : l.leaving ? 1 : 0;
    const int known = place == 0 ? l.scheduler->known_tokens(request) : 0;
    return std::tuple{place, serve::placing_cost(sequences_of(l), places, known), fullness(l)};
  };
  lane* best = nullptr;
  decltype(rank(*best)) lowest{};
  for (auto& [name, l] : state.lanes) {
    if (!l.scheduler || !can_run(state, l, request.variant)) continue;
    const auto its = rank(l);
    if (best && !(its < lowest)) continue;
    best = &l;
    lowest = its;
  }
  return best;
}

void take_grant(self_pointer self, lease_granted& fact) {
  auto& l = self->state.lanes[fact.now.device];
  if (l.device && l.device == fact.device) return go_on(self, l, fact.now);
  lose_device(self, l);
  l.held = fact.now;
  l.facts = std::move(fact.facts);
  l.device = fact.device;
  l.resting = false;
  ++l.life;
  self->monitor(l.device);
  bring_up(self, l);
}

void take_change(self_pointer self, const lease_changed& fact) {
  auto* l = lane_at(self, fact.now.device, fact.now.serve_since);
  if (l && l->device) go_on(self, *l, fact.now);
}

caf::result<device_released> begin_release(self_pointer self, const release_device& order) {
  auto& state = self->state;
  const auto it = state.lanes.find(order.was.device);
  if (it == state.lanes.end() || !it->second.device || it->second.resting)
    return device_released{};  // nothing of ours runs there
  auto& l = it->second;
  if (l.held.serve_since != order.was.serve_since)
    return to_caf({errc::conflict,
                   fmt::format("device {} is asked back of epoch {}, and serves since epoch {}",
                               order.was.device, order.was.serve_since, l.held.serve_since),
                   ""});
  end_departure(l, {errc::cancelled, "device " + order.was.device + " was asked back again", ""});
  l.leaving.emplace();
  l.leaving->answer = self->make_response_promise<device_released>();
  auto answer = l.leaving->answer;
  try_to_leave(self, l);
  if (l.leaving) pump(self, l);
  report_change(self);
  keep_ticking(self);
  return answer;
}

void tenure_ended(self_pointer self, lane& l) {
  no_step(l);
  l.scheduler->forget_sequences();
  end_departure(l, {errc::conflict, "device " + l.held.device + " was taken meanwhile", ""});
  rest(self, l);
  hand_requests_over(self, l);
  report_change(self);
  keep_ticking(self);
}

int hand_requests_over(self_pointer self, lane& l) {
  auto& state = self->state;
  if (!l.scheduler) return 0;
  const bool any =
      std::any_of(state.requests.begin(), state.requests.end(), [&](const auto& entry) {
        return entry.second.lane == l.held.device && taker_for(state, l, entry.second);
      });
  if (!any) {
    // What only clients that went away had running is nobody's.
    if (!has_requests(state, l) && l.in_flight && serves_now(l)) {
      l.scheduler->hand_over_all();
      forget_on_device(self, l);
    }
    return 0;
  }
  int sequences = 0;
  std::vector<lane*> takers;
  auto leaving = l.scheduler->hand_over_all();
  if (serves_now(l)) forget_on_device(self, l);
  for (auto& handed : leaving) {
    const auto live = state.requests.find(handed.request.id);
    if (live == state.requests.end()) continue;  // cancelled while a step ran
    auto* taker = taker_for(state, l, live->second);
    if (!taker) {
      l.scheduler->adopt(std::move(handed));
      continue;
    }
    sequences += handed.open_choices();
    taker->scheduler->adopt(std::move(handed));
    live->second.lane = taker->held.device;
    takers.push_back(taker);
  }
  for (auto* taker : takers) pump(self, *taker);
  return sequences;
}

void take_share(self_pointer self, lane& l) {
  auto& state = self->state;
  if (!serves_now(l) || l.leaving) return;
  for (auto& [name, from] : state.lanes) {
    if (&from == &l || !from.scheduler || from.scheduler->sequences() == 0) continue;
    const bool stuck = !serves_now(from);  // nothing runs there: all of it may come
    for (const auto id : from.scheduler->unread_requests()) {
      if (!stuck && sequences_of(from) <= sequences_of(l) + 1) break;
      const auto live = state.requests.find(id);
      if (live == state.requests.end() || !can_take(state, l, from, live->second)) continue;
      l.scheduler->adopt(from.scheduler->hand_over(id));
      live->second.lane = l.held.device;
    }
    if (serves_now(from) && same_memory(from, l)) from.shares_out = true;
  }
  look_at_departures(self);
}

void share_out(self_pointer self, lane& from) {
  auto& state = self->state;
  if (!std::exchange(from.shares_out, false) || from.leaving || !serves_now(from)) return;
  std::vector<lane*> takers;
  // The newest leave: they have least to take along.
  auto ids = from.scheduler->running_requests();
  for (auto id = ids.rbegin(); id != ids.rend(); ++id) {
    const auto live = state.requests.find(*id);
    auto* taker = live == state.requests.end() ? nullptr : taker_for(state, from, live->second);
    if (!taker || !same_memory(from, *taker)) continue;
    if (sequences_of(from) <= sequences_of(*taker) + 1) break;
    taker->scheduler->adopt(from.scheduler->hand_over(*id));
    live->second.lane = taker->held.device;
    takers.push_back(taker);
  }
  for (auto* taker : takers) pump(self, *taker);
}

void look_at_departures(self_pointer self) {
  for (auto& [name, l] : self->state.lanes) {
    const bool left = l.leaving.has_value();
    try_to_leave(self, l);
    if (left && !l.leaving) report_change(self);
    pump(self, l);
  }
}

void end_departure(lane& l, const error& why) {
  if (auto leaving = std::exchange(l.leaving, std::nullopt)) leaving->answer.deliver(to_caf(why));
}

}  // namespace tandem::actors::serving
