#include "actors/serve_coordinator.hpp"

#include "actors/fault.hpp"
#include "actors/serve_parts.hpp"

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

void no_step(lane& l) {
  l.in_flight = false;
  l.ahead.reset();
}

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
  no_step(l);
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
