#include "actors/serve_coordinator.hpp"

#include "actors/fault.hpp"

#include <algorithm>
#include <utility>

namespace tandem::actors {
namespace {

using self_pointer = serve_coordinator_actor::stateful_pointer<serve_state>;
using lane = serve_state::lane;
using live_request = serve_state::live_request;

constexpr auto tick_period = std::chrono::milliseconds(50);
constexpr auto report_period = std::chrono::milliseconds(100);
constexpr std::size_t failures_kept = 16;

serve::time_ns now_ns(self_pointer self) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             self->clock().now().time_since_epoch())
      .count();
}

// --- reports ----------------------------------------------------------------------------------

lane_report report_of(self_pointer self, const lane& l) {
  lane_report report{l.held, l.facts, {}, {}, false, l.steps, l.rows, l.busy_ns, 0};
  if (l.model) report.model = *l.model;
  if (l.scheduler) report.counts = l.scheduler->counts();
  report.ready = l.device && l.model;
  if (l.in_flight)
    report.step_running_ns =
        std::chrono::duration_cast<std::chrono::nanoseconds>(self->clock().now() - l.step_began)
            .count();
  return report;
}

void report(self_pointer self) {
  auto& state = self->state;
  state.reported = self->clock().now();
  serve_report whole{state.options.model, {}, state.devices_lost, state.failures};
  for (const auto& [name, l] : state.lanes) whole.lanes.push_back(report_of(self, l));
  for (const auto& subscriber : state.subscribers) self->send(subscriber, whole);
}

void report_if_due(self_pointer self) {
  if (self->clock().now() - self->state.reported >= report_period) report(self);
}

bool all_idle(const serve_state& state) {
  return std::all_of(state.lanes.begin(), state.lanes.end(), [](const auto& entry) {
    const auto& l = entry.second;
    return !l.in_flight && (!l.scheduler || l.scheduler->idle());
  });
}

void keep_ticking(self_pointer self) {
  if (std::exchange(self->state.ticking, true)) return;
  self->delayed_send(self, tick_period, tick{});
}

// --- from events to deltas ----------------------------------------------------------------------

// What one step gave to each gateway.
using outbox = std::map<gateway_actor, std::vector<serve::generation_delta>>;

void send_all(self_pointer self, outbox& out) {
  for (auto& [origin, list] : out) self->send(origin, deltas{std::move(list)});
}

void send_failure(self_pointer self, const gateway_actor& origin, serve::request_id id,
                  const error& why) {
  serve::generation_delta last;
  last.id = id;
  last.finish = serve::finish_reason::error;
  last.failure = why;
  self->send(origin, deltas{{std::move(last)}});
}

void close_choice(serve_state& state, serve_state::request_map::iterator it, int choice) {
  auto& open = it->second.open[static_cast<std::size_t>(choice)];
  if (!std::exchange(open, char{0})) return;
  if (--it->second.open_count == 0) state.requests.erase(it);
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
  delta.weights_version = l.model ? l.model->weights_version : 0;
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
    state.requests.erase(it);
  else if (ends)
    close_choice(state, it, event.choice);
}

void deliver(self_pointer self, lane& l, std::vector<serve::sequence_event> events, outbox& out) {
  for (auto& event : events) add_delta(self, l, event, out);
}

// --- steps -------------------------------------------------------------------------------------

void pump(self_pointer self, lane& l);

// Whatever came back belongs to an older lease when the lane's epoch has moved on.
lane* lane_at(self_pointer self, const std::string& name, lease::epoch at) {
  auto it = self->state.lanes.find(name);
  if (it == self->state.lanes.end() || it->second.held.at != at) return nullptr;
  return &it->second;
}

void step_done(self_pointer self, lane& l, const serve::step_result& result) {
  l.in_flight = false;
  ++l.steps;
  l.busy_ns += result.device_ns;
  outbox out;
  deliver(self, l, l.scheduler->complete(result, now_ns(self)), out);
  pump(self, l);  // the device works on while the words are carried out
  send_all(self, out);
  if (all_idle(self->state))
    report(self);
  else
    report_if_due(self);
}

void lose_device(self_pointer self, lane& l) {
  if (!l.device) return;
  l.device = nullptr;
  l.model.reset();
  l.in_flight = false;
  l.lost_at = self->clock().now();
  ++self->state.devices_lost;
  if (l.scheduler) l.scheduler->device_lost();
  keep_ticking(self);
  report(self);
}

void fail_requests(self_pointer self, const std::string& name, const error& why) {
  auto& state = self->state;
  auto& l = state.lanes.at(name);
  for (auto it = state.requests.begin(); it != state.requests.end();) {
    if (it->second.lane != name) {
      ++it;
      continue;
    }
    if (l.scheduler) l.scheduler->cancel(it->first);
    send_failure(self, it->second.origin, it->first, why);
    it = state.requests.erase(it);
  }
}

void pump(self_pointer self, lane& l) {
  if (l.in_flight || !l.device || !l.model) return;
  auto plan = l.scheduler->schedule(now_ns(self));
  if (plan.chunks.empty() && plan.releases.empty()) return;
  l.in_flight = true;
  l.step_began = self->clock().now();
  l.rows += static_cast<std::uint64_t>(plan.rows());
  const auto number = plan.number;
  self->request(l.device, self->state.options.step_deadline, run_step{l.held.at, std::move(plan)})
      .then(
          [=, name = l.held.device, at = l.held.at](const serve::step_result& result) {
            if (auto* now = lane_at(self, name, at)) step_done(self, *now, result);
          },
          [=, name = l.held.device, at = l.held.at](const caf::error& why) {
            auto* now = lane_at(self, name, at);
            if (!now || !now->device) return;
            log_error("device {}: step {} failed: {}", name, number, from_caf(why).detail);
            // Nobody knows what the device holds now; its node starts it anew.
            self->send_exit(now->device, why);
            lose_device(self, *now);
          });
  keep_ticking(self);
}

// --- devices -----------------------------------------------------------------------------------

serve::scheduler_settings scheduler_settings_for(const serve_options& options,
                                                 const serve::loaded_model& model) {
  serve::scheduler_settings settings;
  settings.max_sequences = options.load.max_sequences;
  settings.max_batch_tokens = options.load.max_batch_tokens;
  settings.prefill_chunk_tokens = options.prefill_chunk_tokens;
  settings.max_queued = options.max_queued;
  settings.max_logit_rows = model.max_logit_rows;
  settings.context_length = model.context_length;
  settings.kv_blocks = model.kv_blocks;
  settings.weights_version = model.weights_version;
  settings.prefix_cache = options.prefix_cache;
  return settings;
}

void model_ready(self_pointer self, lane& l, const serve::loaded_model& model) {
  l.model = model;
  l.facts = model.facts;
  if (!l.scheduler)
    l.scheduler =
        std::make_unique<serve::scheduler>(scheduler_settings_for(self->state.options, model));
  report(self);
  pump(self, l);
}

void load_failed(self_pointer self, lane& l, const error& why) {
  auto& failures = self->state.failures;
  failures.push_back(why);
  if (failures.size() > failures_kept) failures.erase(failures.begin());
  l.device = nullptr;
  l.lost_at = self->clock().now();
  fail_requests(self, l.held.device, why);
  report(self);
}

void bring_up(self_pointer self, lease_granted& fact) {
  auto& l = self->state.lanes[fact.now.device];
  lose_device(self, l);
  l.held = fact.now;
  l.facts = std::move(fact.facts);
  l.device = fact.device;
  self->request(l.device, self->state.options.load_deadline,
                load_model{l.held.at, self->state.options.load})
      .then(
          [=, name = l.held.device, at = l.held.at](const serve::loaded_model& model) {
            if (auto* now = lane_at(self, name, at)) model_ready(self, *now, model);
          },
          [=, name = l.held.device, at = l.held.at](const caf::error& why) {
            if (auto* now = lane_at(self, name, at)) load_failed(self, *now, from_caf(why));
          });
}

// --- requests ----------------------------------------------------------------------------------

// The ready lane with the fewest sequences; a lost one only when there is no other (its device is
// on its way back).
lane* choose_lane(serve_state& state) {
  lane* best = nullptr;
  auto load = [](const lane& l) {
    const auto counts = l.scheduler->counts();
    return std::pair{!l.model, counts.queued + counts.running};
  };
  for (auto& [name, l] : state.lanes)
    if (l.scheduler && (!best || load(l) < load(*best))) best = &l;
  return best;
}

void accept(self_pointer self, serve::generation_request request, const gateway_actor& origin) {
  auto& state = self->state;
  const auto id = request.id;
  auto* l = choose_lane(state);
  if (!l)
    return send_failure(self, origin, id,
                        {errc::unavailable, "no device has the model in its memory yet", ""});
  live_request live;
  live.origin = origin;
  live.lane = l->held.device;
  live.open.assign(static_cast<std::size_t>(request.choices), 1);
  live.open_count = request.choices;
  live.min_tokens = request.stops.min_tokens;
  live.want_logprobs = request.sampling.logprobs >= 0;
  if (request.want_text && state.options.tokenizer)
    for (int i = 0; i < request.choices; ++i)
      live.texts.emplace_back(state.options.tokenizer, request.stops.stop,
                              request.stops.include_stop, request.skip_special_tokens);
  if (auto added = l->scheduler->add(std::move(request), now_ns(self)); !added)
    return send_failure(self, origin, id, added.error());
  state.requests.emplace(id, std::move(live));
  pump(self, *l);
  keep_ticking(self);
}

void cancel(self_pointer self, serve::request_id id) {
  auto& state = self->state;
  auto it = state.requests.find(id);
  if (it == state.requests.end()) return;
  auto& l = state.lanes.at(it->second.lane);
  l.scheduler->cancel(id);
  state.requests.erase(it);
  pump(self, l);
  if (all_idle(state)) report(self);
}

void look_at_clocks(self_pointer self) {
  auto& state = self->state;
  const auto now = self->clock().now();
  outbox out;
  for (auto& [name, l] : state.lanes) {
    if (!l.scheduler) continue;
    deliver(self, l, l.scheduler->expire(now_ns(self)), out);
    if (!l.device && now - l.lost_at > state.options.return_deadline)
      fail_requests(self, name,
                    {errc::unavailable, "device " + name + " died and did not come back", ""});
    pump(self, l);
  }
  send_all(self, out);
  state.ticking = false;
  if (!state.requests.empty() || !all_idle(state)) keep_ticking(self);
  report_if_due(self);
}

}  // namespace

serve_coordinator_actor::behavior_type serve_coordinator(self_pointer self, serve_options options,
                                                         coordinator_actor coordinator) {
  keep_exception_text(self);
  self->state.options = std::move(options);
  self->send(coordinator, want_devices{"serve " + self->state.options.model, self});
  return {
      [=](lease_granted& fact) { bring_up(self, fact); },
      [=](const lease_lost& fact) {
        if (auto* l = lane_at(self, fact.was.device, fact.was.at)) lose_device(self, *l);
      },
      [=](generate& order) {
        accept(self, std::move(order.request),
               caf::actor_cast<gateway_actor>(self->current_sender()));
      },
      [=](const cancel_request& order) { cancel(self, order.id); },
      [=](subscribe) {
        self->state.subscribers.push_back(caf::actor_cast<gateway_actor>(self->current_sender()));
        report(self);
      },
      [=](tick) { look_at_clocks(self); },
  };
}

}  // namespace tandem::actors
