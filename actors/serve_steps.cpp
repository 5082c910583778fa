// Steps of a lane: what is planned and sent, mostly one ahead of the device, and what came of it,
// as deltas to those who asked.
#include "actors/fault.hpp"
#include "actors/serve_parts.hpp"
#include "runtime/log.hpp"
#include "runtime/serve/training_gap.hpp"

#include <algorithm>
#include <utility>

namespace tandem::actors::serving {
namespace {

// Beside a longer step what the host takes is nothing, and a step that turns out to be for nothing
// much.
constexpr std::int64_t step_worth_ahead_ns = 30'000'000;

void close_choice(serve_state& state, serve_state::request_map::iterator it, int choice) {
  auto& open = it->second.open[static_cast<std::size_t>(choice)];
  if (!std::exchange(open, char{0})) return;
  if (--it->second.open_count == 0) end_request(state, it);
}

std::uint64_t version_number(const serve_state& state, const lane& l, serve::variant_id id) {
  if (const auto* version = state.versions.find(id)) return version->version;
  return l.model ? l.model->weights_version : 0;
}

void add_delta(self_pointer self, lane& l, serve::sequence_event& event, outbox& out) {
  auto& state = self->state;
  auto it = state.requests.find(event.id);
  if (it == state.requests.end()) return;
  auto& live = it->second;
  const auto choice = static_cast<std::size_t>(event.choice);
  const bool whole_request_failed = event.finish == serve::finish_reason::error;
  if (!whole_request_failed && !live.open[choice]) return;

  serve::generation_delta delta;
  delta.id = event.id;
  delta.choice = event.choice;
  delta.finish = event.finish;
  delta.stop_token = event.stop_token;
  delta.failure = std::move(event.failure);
  delta.prompt_logprobs = std::move(event.prompt_logprobs);
  delta.prompt_tokens = event.prompt_tokens;
  delta.cached_tokens = event.cached_tokens;
  delta.completion_tokens = event.completion_tokens;
  delta.queued_ns = event.queued_ns;
  delta.weights_version = version_number(state, l, live.variant);
  if (!event.tokens.empty()) note_tokens(self, live, event.choice);
  auto* text = live.texts.empty() ? nullptr : &live.texts[choice];
  for (auto& token : event.tokens) {
    delta.tokens.push_back(token.id);
    if (text) {
      auto step = text->add(token.id, event.completion_tokens >= live.min_tokens);
      delta.text += step.text;
      if (step.stop_string) {
        delta.stop_string = std::move(step.stop_string);
        if (delta.finish == serve::finish_reason::none)
          l.scheduler->finish_choice(event.id, event.choice);
        delta.finish = serve::finish_reason::stop;
      }
    }
    if (live.want_logprobs) delta.logprobs.push_back(std::move(token));
  }
  if (text && delta.finish != serve::finish_reason::none && !delta.stop_string)
    delta.text += text->finish();
  const bool ends = delta.finish != serve::finish_reason::none;
  const auto origin = live.origin;
  out[origin].push_back(std::move(delta));
  if (whole_request_failed)
    end_request(state, it);
  else if (ends)
    close_choice(state, it, event.choice);
}

}  // namespace

void send_all(self_pointer self, outbox& out) {
  for (auto& [origin, list] : out) self->send(origin, deltas{std::move(list)});
}

void deliver(self_pointer self, lane& l, std::vector<serve::sequence_event> events, outbox& out) {
  for (auto& event : events) add_delta(self, l, event, out);
}

namespace {

// The lane that has this step in flight or sent ahead, unless it counts for nothing any more.
lane* lane_in_step(self_pointer self, const std::string& name, lease::epoch at,
                   std::uint64_t number) {
  auto* l = lane_at(self, name, at);
  if (!l || !l->device || !l->in_flight) return nullptr;
  return l->step == number || (l->ahead && l->ahead->number == number) ? l : nullptr;
}

// The device goes on with what was sent ahead.
void next_in_flight(self_pointer self, lane& l) {
  l.in_flight = l.ahead.has_value();
  if (!l.ahead) return;
  l.step = l.ahead->number;
  l.step_rows = l.ahead->rows;
  l.step_began = self->clock().now();
  l.ahead.reset();
}

void step_done(self_pointer self, lane& l, const serve::step_result& result) {
  l.pace.add(l.step_rows, self->clock().now() - l.step_began);
  ++l.steps;
  l.rows += static_cast<std::uint64_t>(l.step_rows);
  l.busy_ns += result.device_ns;
  l.step_ns = result.device_ns;
  next_in_flight(self, l);
  auto events = l.scheduler->complete(result, now_ns(self));
  if (!l.in_flight) share_out(self, l);
  pump(self, l);  // the device works on while the words are made and carried out
  outbox out;
  deliver(self, l, std::move(events), out);
  for (const auto& name : std::exchange(self->state.wait_for_blocks, {}))
    pump(self, self->state.lanes.at(name));
  send_all(self, out);
  retire_versions(self);
  if (std::ranges::any_of(self->state.lanes,
                          [](const auto& entry) { return entry.second.leaving.has_value(); }))
    look_at_departures(self);
  if (all_idle(self->state))
    report(self);
  else
    report_if_due(self);
}

// Only latency_first holds training back for steps that are to come.
std::int64_t gap_after(const serve_state& state, const lane& l) {
  if (state.policy.kind != lease::policy_kind::latency_first) return serve::any_gap_ns;
  return serve::training_gap_ns(
      {l.scheduler->reads_prompts(), l.step_ns, state.policy.itl_target_ms});
}

// Not begun: everything it was to do is planned anew.
void step_withdrawn(self_pointer self, lane& l, std::uint64_t number) {
  l.scheduler->take_back(number);
  l.ahead.reset();
  if (l.step == number) l.in_flight = false;
  pump(self, l);
}

void send_step(self_pointer self, lane& l, serve::step_plan plan) {
  const auto number = plan.number;
  self->request(l.device, self->state.options.step_deadline,
                run_step{l.held.serve_since, std::move(plan), gap_after(self->state, l)})
      .then(
          [=, name = l.held.device, at = l.held.serve_since](const serve::step_result& result) {
            if (auto* now = lane_in_step(self, name, at, number)) step_done(self, *now, result);
          },
          [=, name = l.held.device, at = l.held.serve_since](const caf::error& why) {
            auto* now = lane_in_step(self, name, at, number);
            if (!now) return;
            if (is_refusal(why) && from_caf(why).code == errc::cancelled)
              return step_withdrawn(self, *now, number);
            if (is_refusal(why) && from_caf(why).code == errc::conflict)
              return tenure_ended(self, *now);
            if (is_refusal(why) && from_caf(why).param == serve::kv_out_of_reach)
              return read_again(self, *now);
            log_error("device {}: step {} failed: {}", name, number, from_caf(why).detail);
            // Nobody knows what the device holds now.
            give_up_device(self, *now, why);
          });
}

// Nothing is to happen between this step and the next.
bool may_go_on(const lane& l) {
  return serves_now(l) && l.model->steps_ahead && !l.leaving && !l.shares_out &&
         l.awaited.empty() && !lease::trains(l.held.held_as) && l.step_ns < step_worth_ahead_ns &&
         !l.scheduler->wants_place();
}

// While a step runs the next one is planned and sent, so that the device never waits for us; where
// something else is to be done after all, it is called back, and mostly in time.
void look_ahead(self_pointer self, lane& l) {
  const bool goes_on = may_go_on(l);
  if (l.ahead) {
    const bool wanted = goes_on && !l.scheduler->ahead_for_nothing();
    if (!wanted && l.device && !std::exchange(l.ahead->withdrawn, true))
      self->send(l.device, withdraw_step{l.held.serve_since, l.ahead->number});
    return;
  }
  if (!goes_on) return;
  if (auto plan = l.scheduler->schedule_ahead()) {
    l.ahead = {plan->number, plan->rows()};
    send_step(self, l, *std::move(plan));
  }
}

}  // namespace

void pump(self_pointer self, lane& l) {
  if (l.in_flight) return look_ahead(self, l);
  if (!serves_now(l) || !l.awaited.empty()) return;
  auto plan = l.scheduler->schedule(now_ns(self));
  if (plan.chunks.empty() && plan.releases.empty()) {
    if (!l.scheduler->idle()) self->state.wait_for_blocks.insert(l.held.device);
    return;
  }
  l.in_flight = true;
  l.step_began = self->clock().now();
  l.step = plan.number;
  l.step_rows = plan.rows();
  send_step(self, l, std::move(plan));
  look_ahead(self, l);
  keep_ticking(self);
}

}  // namespace tandem::actors::serving
