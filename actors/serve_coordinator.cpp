#include "actors/serve_coordinator.hpp"

#include "actors/fault.hpp"
#include "actors/serve_parts.hpp"
#include "runtime/serve/training_gap.hpp"

#include <algorithm>
#include <utility>

namespace tandem::actors {
namespace serving {
namespace {

constexpr auto tick_period = std::chrono::milliseconds(50);
constexpr std::size_t failures_kept = 16;
constexpr auto lost_together = std::chrono::milliseconds(250);

}  // namespace

void keep_ticking(self_pointer self) {
  if (std::exchange(self->state.ticking, true)) return;
  self->state.tick_due = self->clock().now() + tick_period;
  self->delayed_send(self, tick_period, tick{});
}

namespace {

// --- from events to deltas ----------------------------------------------------------------------

// What one step gave to each gateway.
using outbox = std::map<gateway_actor, std::vector<serve::generation_delta>>;

void send_all(self_pointer self, outbox& out) {
  for (auto& [origin, list] : out) self->send(origin, deltas{std::move(list)});
}

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

void deliver(self_pointer self, lane& l, std::vector<serve::sequence_event> events, outbox& out) {
  for (auto& event : events) add_delta(self, l, event, out);
}

// --- steps -------------------------------------------------------------------------------------

}  // namespace

lane* lane_at(self_pointer self, const std::string& name, lease::epoch at) {
  auto it = self->state.lanes.find(name);
  if (it == self->state.lanes.end() || it->second.held.serve_since != at) return nullptr;
  return &it->second;
}

lane* lane_of(self_pointer self, const std::string& name, std::uint64_t life) {
  auto it = self->state.lanes.find(name);
  if (it == self->state.lanes.end() || it->second.life != life || !it->second.device)
    return nullptr;
  return &it->second;
}

namespace {

// The lane whose newest step this is, unless it counts for nothing any more.
lane* lane_in_step(self_pointer self, const std::string& name, lease::epoch at,
                   std::uint64_t number) {
  auto* l = lane_at(self, name, at);
  return l && l->device && l->in_flight && l->step == number ? l : nullptr;
}

void step_done(self_pointer self, lane& l, const serve::step_result& result) {
  l.in_flight = false;
  l.pace.add(l.step_rows, self->clock().now() - l.step_began);
  ++l.steps;
  l.busy_ns += result.device_ns;
  l.step_ns = result.device_ns;
  outbox out;
  deliver(self, l, l.scheduler->complete(result, now_ns(self)), out);
  share_out(self, l);
  pump(self, l);  // the device works on while the words are carried out
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

// A machine or a network that goes takes several at once: no request is to blame for that.
bool lost_with_others(const self_pointer& self, const lane& l) {
  const auto now = self->clock().now();
  return std::ranges::any_of(self->state.lanes, [&](const auto& entry) {
    const auto& other = entry.second;
    return &other != &l && !other.device && now - other.lost_at < lost_together;
  });
}

// This death counts for none of them.
void forgive_requests(self_pointer self, lane& l) {
  for (const auto& [id, live] : self->state.requests) {
    if (live.lane != l.held.device || !l.scheduler->knows(id)) continue;
    auto handed = l.scheduler->hand_over(id);
    handed.deaths = std::max(0, handed.deaths - 1);
    l.scheduler->adopt(std::move(handed));
  }
}

// Before they take more devices with them.
void give_up_requests(self_pointer self, lane& l, const std::vector<serve::request_id>& ids) {
  auto& state = self->state;
  if (lost_with_others(self, l)) return forgive_requests(self, l);
  for (const auto id : ids) {
    const auto found = state.requests.find(id);
    if (found == state.requests.end()) continue;
    const error why{
        errc::unavailable,
        fmt::format("{} devices and more were lost one after the other while they computed this "
                    "request, the last one was {}: it is not tried again; the log says how each "
                    "of them died",
                    serve::deaths_max, l.held.device),
        ""};
    log_error("request {}: {}", id, why.detail);
    l.scheduler->cancel(id);
    send_failure(self, found->second.origin, id, why);
    end_request(state, found);
  }
}

}  // namespace

void lose_device(self_pointer self, lane& l) {
  if (!l.device) return;
  l.device = nullptr;
  l.model.reset();
  l.pace.forget();
  l.loading = false;
  l.resting = false;
  l.in_flight = false;
  l.lost_at = self->clock().now();
  ++self->state.devices_lost;
  if (l.scheduler) {
    give_up_requests(self, l, l.scheduler->device_lost());
    l.scheduler->set_kv_memory(nullptr);
  }
  end_departure(l, {errc::unavailable, "device " + l.held.device + " died", ""});
  hand_requests_over(self, l);
  lose_versions(self, l);
  retire_versions(self);
  keep_ticking(self);
  report_change(self);
}

void give_up_device(self_pointer self, lane& l, const caf::error& why) {
  self->send_exit(l.device, why);
  lose_device(self, l);
}

void fail_requests(self_pointer self, const std::string& name, const error& why,
                   const std::function<bool(const live_request&)>& which) {
  auto& state = self->state;
  auto& l = state.lanes.at(name);
  for (auto it = state.requests.begin(); it != state.requests.end();) {
    if (it->second.lane != name || !which(it->second)) {
      ++it;
      continue;
    }
    if (l.scheduler) l.scheduler->cancel(it->first);
    send_failure(self, it->second.origin, it->first, why);
    it = end_request(state, it);
  }
}

namespace {

// Only latency_first holds training back for steps that are to come.
std::int64_t gap_after(const serve_state& state, const lane& l) {
  if (state.policy.kind != lease::policy_kind::latency_first) return serve::any_gap_ns;
  return serve::training_gap_ns(
      {l.scheduler->reads_prompts(), l.step_ns, state.policy.itl_target_ms});
}

}  // namespace

void pump(self_pointer self, lane& l) {
  if (l.in_flight || !serves_now(l) || !l.awaited.empty()) return;
  auto plan = l.scheduler->schedule(now_ns(self));
  if (plan.chunks.empty() && plan.releases.empty()) {
    if (!l.scheduler->idle()) self->state.wait_for_blocks.insert(l.held.device);
    return;
  }
  l.in_flight = true;
  l.step_began = self->clock().now();
  l.step_rows = plan.rows();
  l.rows += static_cast<std::uint64_t>(l.step_rows);
  const auto number = l.step = plan.number;
  self->request(l.device, self->state.options.step_deadline,
                run_step{l.held.serve_since, std::move(plan), gap_after(self->state, l)})
      .then(
          [=, name = l.held.device, at = l.held.serve_since](const serve::step_result& result) {
            if (auto* now = lane_in_step(self, name, at, number)) step_done(self, *now, result);
          },
          [=, name = l.held.device, at = l.held.serve_since](const caf::error& why) {
            auto* now = lane_in_step(self, name, at, number);
            if (!now) return;
            if (is_refusal(why) && from_caf(why).code == errc::conflict)
              return tenure_ended(self, *now);
            if (is_refusal(why) && from_caf(why).param == serve::kv_out_of_reach)
              return read_again(self, *now);
            log_error("device {}: step {} failed: {}", name, number, from_caf(why).detail);
            // Nobody knows what the device holds now.
            give_up_device(self, *now, why);
          });
  keep_ticking(self);
}

namespace {

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
  l.loading = false;
  l.model = model;
  l.facts = model.facts;
  if (!l.scheduler)
    l.scheduler =
        std::make_unique<serve::scheduler>(scheduler_settings_for(self->state.options, model));
  l.scheduler->set_kv_memory(model.kv);
  restore_versions(self, l);
  take_share(self, l);
  report_change(self);
  pump(self, l);
}

// It will not come back soon: nobody is to wait for it.
void fail_lane(self_pointer self, const std::string& name, const error& why) {
  fail_requests(self, name, why, [](const live_request&) { return true; });
  stop_waiting_for(self, name, why);
  retire_versions(self);
}

void load_failed(self_pointer self, lane& l, const error& why) {
  l.loading = false;
  if (l.resting && why.code == errc::conflict) return;  // its tenure ended before: see go_on
  auto& failures = self->state.failures;
  failures.push_back(why);
  if (failures.size() > failures_kept) failures.erase(failures.begin());
  l.device = nullptr;
  l.lost_at = self->clock().now();
  end_departure(l, why);
  fail_lane(self, l.held.device, why);
  report_change(self);
}

}  // namespace

void bring_up(self_pointer self, lane& l) {
  l.loading = true;
  self->request(l.device, self->state.options.load_deadline,
                load_model{l.held.serve_since, self->state.options.load})
      .then(
          [=, name = l.held.device, life = l.life](const serve::loaded_model& model) {
            if (auto* now = lane_of(self, name, life)) model_ready(self, *now, model);
          },
          [=, name = l.held.device, life = l.life](const caf::error& why) {
            if (auto* now = lane_of(self, name, life)) load_failed(self, *now, from_caf(why));
          });
}

namespace {

// A device of another process that was given back before it went has left with its node: the lane
// goes with it, where nobody waits on it.
void lane_down(self_pointer self, lane& l) {
  auto& state = self->state;
  const bool left = l.resting && l.device.node() != self->node();
  const auto name = l.held.device;
  lose_device(self, l);
  const bool waited_on = std::any_of(state.requests.begin(), state.requests.end(),
                                     [&](const auto& entry) { return entry.second.lane == name; });
  if (!left || waited_on) return;
  stop_waiting_for(self, name, {errc::unavailable, "device " + name + " left", ""});
  state.wait_for_blocks.erase(name);
  state.lanes.erase(name);
  report(self);
}

void device_down(self_pointer self, const caf::actor_addr& source) {
  for (auto& [name, l] : self->state.lanes)
    if (l.device && l.device.address() == source) return lane_down(self, l);
}

void look_at_clocks(self_pointer self) {
  auto& state = self->state;
  const auto now = self->clock().now();
  forgive_standstill(self);
  outbox out;
  for (auto& [name, l] : state.lanes) {
    if (!l.scheduler) continue;
    deliver(self, l, l.scheduler->expire(now_ns(self)), out);
    if (!serves_now(l) && !l.loading && now - l.lost_at > state.options.return_deadline)
      fail_lane(
          self, name,
          {errc::unavailable,
           "device " + name +
               (l.device ? " was given away and did not come back" : " died and did not come back"),
           ""});
    look_at_progress(self, l);
    pump(self, l);
  }
  look_at_departures(self);
  send_all(self, out);
  look_at_publications(self);
  retire_versions(self);
  state.ticking = false;
  if (!state.requests.empty() || !state.publications.empty() || !all_idle(state))
    keep_ticking(self);
  report_if_due(self);
}

void ask_for_devices(self_pointer self, coordinator_actor of) {
  self->state.coordinator = std::move(of);
  self->send(self->state.coordinator, want_devices{"serve " + self->state.options.model, self});
}

}  // namespace
}  // namespace serving

serve_coordinator_actor::behavior_type serve_coordinator(serving::self_pointer self,
                                                         serve_options options,
                                                         coordinator_actor coordinator) {
  using namespace serving;
  keep_exception_text(self);
  self->state.options = std::move(options);
  self->set_down_handler([=](const caf::down_msg& down) {
    if (!gateway_down(self, down.source)) device_down(self, down.source);
  });
  ask_for_devices(self, std::move(coordinator));
  // CAF tries them in this order: what comes most often stands first.
  return {
      [=](generate& order) {
        accept(self, order, caf::actor_cast<gateway_actor>(self->current_sender()));
      },
      [=](tick) { look_at_clocks(self); },
      [=](lease_granted& fact) { take_grant(self, fact); },
      [=](const lease_changed& fact) { take_change(self, fact); },
      [=](const policy_changed& fact) { self->state.policy = fact.now; },
      [=](const release_device& order) { return begin_release(self, order); },
      [=](const lease_lost& fact) {
        if (auto* l = lane_at(self, fact.was.device, fact.was.serve_since)) lose_device(self, *l);
      },
      [=](const coordinator_changed& fact) { ask_for_devices(self, fact.now); },
      [=](const cancel_request& order) { cancel(self, order.id); },
      [=](publish_version& order) { return begin_publication(self, order); },
      [=](const withdraw_names& order) { take_names_back(self, order); },
      [=](subscribe) { add_gateway(self, caf::actor_cast<gateway_actor>(self->current_sender())); },
  };
}

}  // namespace tandem::actors
