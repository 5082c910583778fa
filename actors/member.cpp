#include "actors/member.hpp"

#include "actors/fault.hpp"
#include "actors/link.hpp"

#include <algorithm>
#include <utility>

#include <unistd.h>

namespace tandem::actors {
namespace {

using self_pointer = caf::stateful_actor<member_state>*;
using kind = member_news::kind;

void tell(self_pointer self, kind what, std::string why = {}) {
  self->state.options.tell({what, std::move(why)});
}

// A worker's head is there, if slow: it started the worker.
constexpr std::uint64_t worker_tries_max = 5;

// Not in: turned away for good at the first try, else it tries again later.
void failed(self_pointer self, const error& why) {
  auto& state = self->state;
  const std::uint64_t tries_max = state.options.is_worker ? worker_tries_max : 1;
  if (!state.was_in && state.tries >= tries_max) return tell(self, kind::turned_away, why.detail);
  const auto& options = state.options;
  state.pause = std::clamp(state.pause * 2, options.first_pause, options.pause_max);
  log_warning("the head at {} is not to be had: {}; trying again in {} ms", options.head,
              why.detail, state.pause.count());
  self->delayed_send(self, state.pause, try_to_join{});
}

void came_in(self_pointer self, const cluster_joined& answer) {
  auto& state = self->state;
  state.keeper = answer.keeper;
  self->monitor(state.keeper);
  state.node = self->spawn<caf::linked>(node, state.options.devices, coordinator_actor());
  self->send(state.keeper, keep_told{caf::actor_cast<caf::actor>(state.node), true});
  if (state.options.devices.start_worker)
    self->send(state.roster,
               watch_workers{state.options.name, caf::actor_cast<caf::actor>(state.node)});
  state.was_in = true;
  state.pause = {};
  tell(self, kind::joined);
  if (state.is_leaving) self->send(self, leave_now{});
}

void ask_to_join(self_pointer self) {
  auto& state = self->state;
  const auto& options = state.options;
  std::vector<std::string> devices;
  for (const auto& spec : options.devices.devices) devices.push_back(spec.name);
  const auto number = state.tries;
  self->request(
          state.roster, options.answer_within,
          join_cluster{options.name, options.address, std::move(devices), options.is_worker,
                       static_cast<std::uint64_t>(::getpid()), caf::actor_cast<caf::actor>(self)})
      .then(
          [=](const cluster_joined& answer) {
            if (self->state.tries == number) came_in(self, answer);
          },
          [=](const caf::error& why) {
            if (self->state.tries != number) return;
            self->state.roster = nullptr;
            failed(self, from_caf(why));
          });
}

void look_for_head(self_pointer self) {
  auto& state = self->state;
  if (state.is_leaving) return tell(self, kind::let_go);
  const auto number = ++state.tries;
  link_of(self->system())
      .resolve<roster_actor>(self, state.options.head, roster_name, state.options.answer_within)
      .then(
          [=](const caf::strong_actor_ptr& found) {
            if (self->state.tries != number) return;
            self->state.roster = caf::actor_cast<roster_actor>(found);
            ask_to_join(self);
          },
          [=](const caf::error& why) {
            if (self->state.tries != number) return;
            failed(self,
                   is_refusal(why)
                       ? from_caf(why)
                       : error{errc::timed_out,
                               fmt::format("{} did not answer in {} ms", self->state.options.head,
                                           self->state.options.answer_within.count()),
                               ""});
          });
}

void head_lost(self_pointer self) {
  auto& state = self->state;
  state.keeper = nullptr;
  state.roster = nullptr;
  if (auto ended = std::exchange(state.node, nullptr)) {
    self->unlink_from(ended);
    self->send_exit(ended, caf::exit_reason::user_shutdown);
  }
  tell(self, kind::lost, fmt::format("the head at {} is gone", state.options.head));
  self->delayed_send(self, state.options.first_pause, try_to_join{});
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
  self->set_down_handler([=](const caf::down_msg& down) {
    if (self->state.keeper && self->state.keeper.address() == down.source) head_lost(self);
  });
  self->set_exit_handler([=](const caf::exit_msg& end) {
    if (self->state.node) self->send_exit(self->state.node, end.reason);
    self->quit(end.reason);
  });
  self->send(self, try_to_join{});
  return {
      [=](try_to_join) { look_for_head(self); },
      [=](leave_now) { leave(self); },
      [=](const let_go& order) { tell(self, kind::let_go, order.why); },
  };
}

}  // namespace tandem::actors
