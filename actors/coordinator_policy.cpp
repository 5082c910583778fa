// What each device is wanted as: the policy's wish, or a person's order.
#include "actors/coordinator_parts.hpp"
#include "runtime/lease/move_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::actors::lending {
namespace {

using lease::role;
using std::chrono::duration_cast;
using std::chrono::milliseconds;

// Numbers of serving older than this say nothing: nothing works there.
constexpr auto load_lasts = std::chrono::seconds(1);
// A device that has to come back within so many cooldowns was given away in vain.
constexpr int regret_cooldowns = 4;
constexpr auto regret_lasts = std::chrono::seconds(30);
constexpr std::size_t answers_max = 1024;

std::int64_t ms(coordinator_state::time_point at) {
  return duration_cast<milliseconds>(at.time_since_epoch()).count();
}

// After a restart nobody loses a device before its holder could say that it holds it.
bool still_expected(self_pointer self, const std::string& device, const lease::lease& held) {
  const auto& state = self->state;
  if (!state.took_over || self->clock().now() - state.began >= state.options.return_period)
    return false;
  if (lease::serves(held.held_as) && !state.serve_coordinator) return true;
  return lease::trains(held.held_as) &&
         (state.job.id != held.job() || !state.job.homes.contains(device));
}

void want(self_pointer self, const std::string& device, member& m, const lease::lease& lent,
          lease::wish wish, std::string cause) {
  auto& state = self->state;
  const auto held = lent.held_as;
  if (!state.serve_coordinator) {  // nobody serves: training alone, or nothing
    const bool trains = state.job.homes.contains(device);
    wish.as = trains ? role::train : role::idle;
    wish.why = trains ? "nobody serves" : "nobody serves and no job is open here";
  }
  if (still_expected(self, device, lent)) wish.as = held;
  const auto now = self->clock().now();
  if (wish.as == m.wanted) {
    if (m.stage == lease::stage::still && held == m.wanted) m.why = std::move(wish.why);
    return;
  }
  if (cause.empty() && state.policy.kind == lease::policy_kind::latency_first) {
    if (wish.as == role::train) m.given_to_training = now;
    const auto vain = milliseconds(state.policy.cooldown_ms) * regret_cooldowns;
    if (m.wanted == role::train && now - m.given_to_training < vain) {
      ++state.regrets;
      state.regretted = now;
    }
  }
  const auto pin = state.pins.find(device);
  if (pin != state.pins.end() && pin->second == wish.as) cause = "assigned by hand";
  m.wanted = wish.as;
  m.cause = cause.empty() ? std::string(lease::name_of(state.policy.kind)) : std::move(cause);
  m.why = std::move(wish.why);
  m.given = std::move(wish.given);
  m.decided = now;
  m.retry_at = {};
  state.report_due = true;
}

error not_up(const std::string& device) {
  return {errc::unavailable, fmt::format("device {} is gone", device), "device"};
}

}  // namespace

error book_not_read() {
  return {errc::unavailable, "the store of the book of leases does not answer yet", "store.url"};
}

lease::cluster_view view_of(self_pointer self) {
  auto& state = self->state;
  const auto now = self->clock().now();
  if (now - state.load_at > load_lasts) state.service = {};
  lease::cluster_view view;
  view.now_ms = ms(now);
  view.service = state.service;
  view.regrets = state.regrets;
  if (!state.job.homes.empty()) view.training = {state.job.id, state.job.priority};
  view.devices.reserve(state.members.size());
  auto pin = state.pins.begin();
  auto home = state.job.homes.begin();
  for (const auto& [name, m] : state.members) {
    while (pin != state.pins.end() && pin->first < name) ++pin;
    while (home != state.job.homes.end() && *home < name) ++home;
    if (state.leaving.contains(name)) continue;
    lease::device_view d;
    d.name = name;
    d.held_as = m.wanted == role::idle ? held_as(state, name) : m.wanted;
    d.resident = home != state.job.homes.end() && *home == name;
    if (pin != state.pins.end() && pin->first == name) d.pin = pin->second;
    d.since_ms = ms(m.stage == lease::stage::still ? m.changed : now);
    d.running = m.running;
    d.queued = m.queued;
    d.busy = m.busy * still_counts(now - m.busy_at);
    view.devices.push_back(std::move(d));
  }
  return view;
}

void think(self_pointer self) {
  auto& state = self->state;
  const auto now = self->clock().now();
  state.think_due = false;
  state.thought = now;
  const auto cause = std::exchange(state.cause, {});
  if (state.regrets > 0 && now - state.regretted > regret_lasts) state.regrets = 0;
  auto view = view_of(self);
  const auto pressure = lease::pressure_of(state.policy, view);
  const auto since = [&](coordinator_state::spell& spell, bool lasts) {
    if (lasts && !std::exchange(spell.lasts, lasts)) spell.since = now;
    spell.lasts = lasts;
    return lasts ? ms(spell.since) : -1;
  };
  view.calm_since_ms = since(state.calm, pressure == lease::pressure::calm);
  view.safe_since_ms = since(state.safe, pressure != lease::pressure::threatened);
  // Wishes stand in the order of the members that stay. Most stay as they are, at every look.
  std::vector<std::string> moving;
  auto at = state.members.begin();
  for (auto& wish : lease::decide(state.policy, view)) {
    while (state.leaving.contains(at->first)) ++at;
    auto& [device, m] = *at++;
    const auto& held = *state.book.find(device);
    want(self, device, m, held, std::move(wish), cause);
    if (next_action(state, m, held) != lease::move_action::none) moving.push_back(device);
  }
  for (const auto& device : moving) reconcile(self, device);
  const auto leaving = state.leaving;
  for (const auto& [device, node] : leaving) {
    want(self, device, state.members.at(device), *state.book.find(device),
         {device, role::idle, fmt::format("{} is to leave", node), {}}, "the node leaves");
    reconcile(self, device);
  }
}

caf::result<lease::lease> assign_by_hand(self_pointer self, const assign& order) {
  auto& state = self->state;
  if (state.book_unread) return to_caf(book_not_read());
  const auto as = order.by_policy ? std::nullopt : std::optional(order.as);
  const auto view = view_of(self);
  const auto found = state.members.find(order.device);
  if (const auto leaves = state.leaving.find(order.device); leaves != state.leaving.end())
    return to_caf({errc::conflict,
                   fmt::format("device {} leaves with {}", order.device, leaves->second),
                   "device"});
  // Where the job does not lie, its bytes would have to come first.
  if (found != state.members.end() && as && lease::trains(*as) && !state.job.homes.empty() &&
      !state.job.homes.contains(order.device)) {
    lease::move_order move;
    move.device = order.device;
    move.from = held_as(state, order.device);
    move.to = *as;
    move.capacity = found->second.facts.memory_capacity;
    move.used = found->second.facts.memory_by_owner;
    move.job = state.job.id;
    move.job_bytes = state.job.bytes_each;
    if (auto plan = lease::plan_move(move); !plan) return to_caf(plan.error());
  }
  if (auto allowed = lease::check_pin(state.policy, view, order.device, as); !allowed)
    return to_caf(allowed.error());
  if (as)
    state.pins[order.device] = *as;
  else
    state.pins.erase(order.device);
  state.unsaved.insert(order.device);
  auto answer = self->make_response_promise<lease::lease>();
  state.answers.push_back({order.device, answer});
  state.think_due = true;
  if (state.answers.size() < answers_max) {
    poke(self);
    return answer;
  }
  save_pins(self);
  think(self);
  answer_assigns(self);
  return answer;
}

void save_pins(self_pointer self) {
  auto& state = self->state;
  for (const auto& device : std::exchange(state.unsaved, {})) {
    const auto now = state.pins.find(device);
    const auto was = state.saved_pins.find(device);
    const auto as = now == state.pins.end() ? std::nullopt : std::optional(now->second);
    const auto before = was == state.saved_pins.end() ? std::nullopt : std::optional(was->second);
    if (as == before) continue;
    const auto saved = state.options.book ? state.options.book->pin(device, as) : result<void>();
    if (!saved) {  // it counts for nothing, and its senders hear why
      before ? void(state.pins[device] = *before) : void(state.pins.erase(device));
      for (auto& asked : state.answers)
        if (asked.device == device) asked.answer.deliver(to_caf(saved.error()));
      std::erase_if(state.answers, [&](const auto& asked) { return asked.device == device; });
      continue;
    }
    as ? void(state.saved_pins[device] = *as) : void(state.saved_pins.erase(device));
    lease::event event;
    event.kind = "assigned";
    event.device = device;
    event.from = held_as(state, device);
    event.to = as.value_or(event.from);
    event.cause = "assigned by hand";
    event.why = as ? fmt::format("ordered by hand to {}", lease::name_of(*as))
                   : std::string("given back to the policy by hand");
    add_event(self, std::move(event));
    state.report_due = true;
  }
}

void answer_assigns(self_pointer self) {
  auto& state = self->state;
  for (auto& asked : std::exchange(state.answers, {})) {
    if (const auto* held = state.book.find(asked.device))
      asked.answer.deliver(*held);
    else
      asked.answer.deliver(to_caf(not_up(asked.device)));
  }
}

caf::result<void> begin_retirement(self_pointer self, const retire_devices& order) {
  auto& state = self->state;
  for (const auto& device : order.devices)
    if (state.members.contains(device)) state.leaving[device] = order.node;
  auto answer = self->make_response_promise<caf::unit_t>();
  state.retirements.push_back({order.node, order.devices, answer, self->clock().now()});
  if (state.job.to && std::ranges::any_of(order.devices, [&](const auto& device) {
        return state.job.homes.contains(device);
      }))
    self->send(state.job.to, homes_changed{});
  lease::event event;
  event.kind = "node_drains";
  event.cause = "the node leaves";
  event.why = fmt::format("{} is to leave with {} devices: their requests go on elsewhere",
                          order.node, order.devices.size());
  add_event(self, std::move(event));
  think_soon(self);
  return answer;
}

void answer_retirements(self_pointer self) {
  auto& state = self->state;
  const auto elsewhere = std::ranges::any_of(
      state.members, [&](const auto& one) { return !state.leaving.contains(one.first); });
  const auto idle = [&](const std::string& device) {
    const auto it = state.members.find(device);
    return it == state.members.end() ||
           (it->second.stage == lease::stage::still && !it->second.unsure &&
            held_as(state, device) == role::idle);
  };
  const auto lies_there = [&](const std::string& device) {
    return state.members.contains(device) && state.job.homes.contains(device);
  };
  std::erase_if(state.retirements, [&](coordinator_state::retirement& one) {
    if (!std::ranges::all_of(one.devices, idle)) return false;
    const bool waits = self->clock().now() - one.began < state.options.job_moves_within;
    if (elsewhere && waits && std::ranges::any_of(one.devices, lies_there)) return false;
    one.answer.deliver(caf::unit);
    return true;
  });
}

caf::result<lease::policy_settings> change_policy(self_pointer self, const set_policy& order) {
  auto& state = self->state;
  if (auto possible = lease::check_policy(order.to); !possible) return to_caf(possible.error());
  const auto up = static_cast<int>(state.members.size());
  if (order.to.min_serve_devices > up && up > 0 &&
      order.to.min_serve_devices != state.policy.min_serve_devices)
    return to_caf({errc::bad_request,
                   fmt::format("min_serve_devices: {} of {} devices cannot serve: give 1 to {}",
                               order.to.min_serve_devices, up, up),
                   "min_serve_devices"});
  if (order.to == state.policy) return state.policy;
  state.policy = order.to;
  if (state.serve_coordinator) self->send(state.serve_coordinator, policy_changed{state.policy});
  lease::event event;
  event.kind = "policy";
  event.cause = lease::name_of(order.to.kind);
  event.why = fmt::format("from now on {}, at least {} serve", lease::name_of(order.to.kind),
                          order.to.min_serve_devices);
  event.given = {{"min_serve_devices", order.to.min_serve_devices},
                 {"max_train_devices", order.to.max_train_devices},
                 {"cooldown_ms", order.to.cooldown_ms},
                 {"ttft_target_ms", order.to.ttft_target_ms},
                 {"itl_target_ms", order.to.itl_target_ms}};
  add_event(self, std::move(event));
  report_soon(self);
  think_soon(self);
  return state.policy;
}

}  // namespace tandem::actors::lending
