#include "actors/member.hpp"

#include "actors/fault.hpp"
#include "actors/link.hpp"
#include "actors/reach.hpp"

#include <algorithm>
#include <utility>

#include <unistd.h>

namespace tandem::actors {
namespace {

using self_pointer = caf::stateful_actor<member_state>*;
using kind = member_news::kind;

void tell(self_pointer self, kind what, std::string why = {}) {
  self->state.options.tell({what, std::move(why), self->state.head, {}});
}

// A worker's head is there, if slow: it started the worker.
constexpr std::uint64_t worker_tries_max = 5;

// Somebody else may lead soon: then it is looked for more often.
std::chrono::milliseconds pause_max(const member_state& state) {
  const auto& options = state.options;
  return state.heads.addresses().size() > 1 ? std::min(options.follow_within, options.pause_max)
                                            : options.pause_max;
}

// Not in: turned away for good at the first try, else it tries again later.
void failed(self_pointer self) {
  auto& state = self->state;
  const auto why = nobody_leads(state.refusals);
  const std::uint64_t tries_max = state.options.is_worker ? worker_tries_max : 1;
  if (!state.was_in && state.tries >= tries_max) return tell(self, kind::turned_away, why);
  state.pause = std::clamp(state.pause * 2, state.options.first_pause, pause_max(state));
  log_warning("no head is to be had: {}; trying again in {} ms", why, state.pause.count());
  self->delayed_send(self, state.pause, try_to_join{});
}

void came_in(self_pointer self, const cluster_joined& answer) {
  auto& state = self->state;
  ++state.tries;  // what others of the round say is void
  state.found.clear();
  state.store = answer.store;
  state.epoch = answer.epoch;
  state.heads.told(state.head, answer.heads);
  state.keeper = answer.keeper;
  self->monitor(state.keeper);
  auto devices = state.options.devices;
  if (state.options.workers_for) devices.start_worker = state.options.workers_for(state.head);
  state.node = self->spawn<caf::linked>(node, devices, coordinator_actor());
  self->send(state.keeper, keep_told{caf::actor_cast<caf::actor>(state.node), true});
  if (devices.start_worker)
    self->send(state.roster,
               watch_workers{state.options.name, caf::actor_cast<caf::actor>(state.node)});
  state.was_in = true;
  state.pause = {};
  tell(self, kind::joined);
  if (state.is_leaving) self->send(self, leave_now{});
}

void ask_next(self_pointer self);

void refused(self_pointer self, const std::string& address, std::string why) {
  self->state.refusals.emplace_back(address, std::move(why));
  ask_next(self);
}

void ask_to_join(self_pointer self, const member_state::candidate& head) {
  auto& state = self->state;
  const auto& options = state.options;
  state.asking = true;
  state.roster = head.roster;
  state.head = head.address;
  std::vector<std::string> devices;
  for (const auto& spec : options.devices.devices) devices.push_back(spec.name);
  const auto number = state.tries;
  self->request(state.roster, options.answer_within,
                join_cluster{options.name, options.address, std::move(devices), options.is_worker,
                             static_cast<std::uint64_t>(::getpid()),
                             caf::actor_cast<caf::actor>(self), state.store, state.epoch})
      .then(
          [=](const cluster_joined& answer) {
            if (self->state.tries == number) came_in(self, answer);
          },
          [=, address = head.address](const caf::error& why) {
            if (self->state.tries != number) return;
            self->state.roster = nullptr;
            self->state.asking = false;
            refused(self, address, from_caf(why).detail);
          });
}

// One head after the other: two that let it in at once would both lend its devices.
void ask_next(self_pointer self) {
  auto& state = self->state;
  if (state.asking) return;
  if (!state.found.empty()) {
    const auto next = std::move(state.found.front());
    state.found.erase(state.found.begin());
    return ask_to_join(self, next);
  }
  if (state.unanswered == 0) failed(self);
}

void look_at(self_pointer self, const std::string& address, std::chrono::milliseconds within) {
  const auto number = self->state.tries;
  link_of(self->system())
      .resolve<roster_actor>(self, address, roster_name, within)
      .then(
          [=](const caf::strong_actor_ptr& found) {
            auto& state = self->state;
            if (state.tries != number) return;
            --state.unanswered;
            state.found.push_back({address, caf::actor_cast<roster_actor>(found)});
            ask_next(self);
          },
          [=](const caf::error& why) {
            auto& state = self->state;
            if (state.tries != number) return;
            --state.unanswered;
            refused(self, address,
                    is_refusal(why)
                        ? from_caf(why).detail
                        : fmt::format("{} did not answer in {} ms", address, within.count()));
          });
}

// All at once: one that is cut off answers late or never.
void look_for_head(self_pointer self) {
  auto& state = self->state;
  if (state.is_leaving) return tell(self, kind::let_go);
  ++state.tries;
  state.found.clear();
  state.refusals.clear();
  state.asking = false;
  const auto addresses = state.heads.addresses();
  state.unanswered = addresses.size();
  const bool follows = state.was_in && addresses.size() > 1;
  for (const auto& address : addresses)
    look_at(self, address, follows ? state.options.follow_within : state.options.answer_within);
}

void head_lost(self_pointer self) {
  auto& state = self->state;
  state.keeper = nullptr;
  state.roster = nullptr;
  state.options.tell({kind::lost, fmt::format("the head at {} is gone", state.head), state.head,
                      state.heads.addresses()});
  // The next head's devices begin when this one's have ended (node_ended).
  const auto node = std::exchange(state.node, nullptr);
  state.ending = node.address();
  self->unlink_from(node);
  self->monitor(node);
  self->send_exit(node, caf::exit_reason::user_shutdown);
}

void node_ended(self_pointer self) {
  self->state.ending = nullptr;
  self->delayed_send(self, self->state.options.first_pause, try_to_join{});
}

void leave(self_pointer self) {
  auto& state = self->state;
  state.is_leaving = true;
  if (!state.roster || !state.node) return;  // look_for_head or came_in goes on
  self->request(state.roster, caf::infinite, leave_cluster{state.options.name})
      .then([] {},  // let_go follows
            [=](const caf::error& why) {
              if (is_refusal(why)) tell(self, kind::let_go, from_caf(why).detail);
            });
}

}  // namespace

caf::behavior member(self_pointer self, member_options options) {
  keep_exception_text(self);
  self->state.options = std::move(options);
  self->state.heads = head_search(self->state.options.heads);
  self->set_down_handler([=](const caf::down_msg& down) {
    const auto& now = self->state;
    if (now.keeper && now.keeper.address() == down.source) return head_lost(self);
    if (now.ending && now.ending == down.source) node_ended(self);
  });
  self->set_exit_handler([=](const caf::exit_msg& end) {
    if (self->state.node) self->send_exit(self->state.node, end.reason);
    self->quit(end.reason);
  });
  self->spawn<caf::linked>(reach);
  self->send(self, try_to_join{});
  return {
      [=](try_to_join) { look_for_head(self); },
      [=](leave_now) { leave(self); },
      [=](const heads_changed& news) { self->state.heads.told(self->state.head, news.others); },
      [=](const let_go& order) { tell(self, kind::let_go, order.why); },
  };
}

}  // namespace tandem::actors
