#include "actors/door.hpp"

#include "actors/fault.hpp"
#include "actors/link.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace tandem::actors {
namespace {

using self_pointer = caf::stateful_actor<door_state>*;

// A head that has just begun has no doorkeeper yet.
void try_later(self_pointer self, const caf::error& why) {
  auto& state = self->state;
  state.keeper = nullptr;
  state.pause = std::clamp(state.pause * 2, state.options.first_pause, state.options.period);
  log_debug("the doorkeeper of {} is not to be had: {}", state.head, from_caf(why).detail);
  self->delayed_send(self, state.pause, ask_again{state.number});
}

// A head that was started again may have other files at the same path. What cannot be had is asked
// for again with the next terms.
void bring_model(self_pointer self) {
  auto& state = self->state;
  const auto& terms = state.news.terms;
  const std::pair which{terms.serve_coordinator.node(), terms.model_path};
  if (state.wanted == which) return;
  state.wanted = which;
  state.news.model.reset();
  self->request(
          state.options.borrower, caf::infinite,
          borrow{which.first, which.second, shelf::purpose::model, state.options.model_patience})
      .then(
          [=](const borrowed& here) {
            auto& now = self->state;
            if (now.wanted != which) return;
            now.news.model = here;
            now.failures = 0;
            now.options.tell(now.news);
          },
          [=](const caf::error& why) {
            auto& now = self->state;
            if (now.wanted != which) return;
            now.wanted.reset();
            if (std::has_single_bit(++now.failures))
              log_warning("the door has no model yet: {}", from_caf(why).detail);
          });
}

void ask(self_pointer self) {
  auto& state = self->state;
  self->request(state.keeper, state.options.answer_within, ask_terms{})
      .then(
          [=, number = state.number](const door_terms& terms) {
            auto& now = self->state;
            if (now.number != number) return;
            now.pause = {};
            now.news.head = now.head;
            now.news.terms = terms;
            const bool opens = terms.is_wanted && terms.serve_coordinator;
            if (opens) bring_model(self);
            now.options.tell(now.news);
            if (!opens) return;  // a head's mind changes with its process
            self->send(now.options.gateway, serve_coordinator_changed{terms.serve_coordinator});
            self->delayed_send(self, now.options.period, ask_again{number});
          },
          [=, number = state.number](const caf::error& why) {
            if (self->state.number == number) try_later(self, why);
          });
}

void find_keeper(self_pointer self) {
  auto& state = self->state;
  link_of(self->system())
      .resolve<doorkeeper_actor>(self, state.head, doorkeeper_name, state.options.answer_within)
      .then(
          [=, number = state.number](const caf::strong_actor_ptr& found) {
            if (self->state.number != number) return;
            self->state.keeper = caf::actor_cast<doorkeeper_actor>(found);
            ask(self);
          },
          [=, number = state.number](const caf::error& why) {
            if (self->state.number == number) try_later(self, why);
          });
}

}  // namespace

caf::behavior door(self_pointer self, door_options options) {
  keep_exception_text(self);
  self->state.options = std::move(options);
  return {
      [=](const head_found& fact) {
        auto& state = self->state;
        state.head = fact.address;
        state.keeper = nullptr;
        state.pause = {};
        ++state.number;
        find_keeper(self);
      },
      [=](head_lost) {
        ++self->state.number;
        self->state.keeper = nullptr;
      },
      [=](const ask_again& order) {
        if (order.number != self->state.number) return;
        if (self->state.keeper)
          ask(self);
        else
          find_keeper(self);
      },
  };
}

}  // namespace tandem::actors
