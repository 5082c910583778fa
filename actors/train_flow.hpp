// The parts of a train coordinator that call each other; internal to actors/train_*.cpp. Life
// (train_coordinator.cpp): prepare, open, leave, what goes wrong. Steps (train_steps.cpp): rounds,
// norm, update, validation. Versions (train_versions.cpp): checkpoints, publishing, the end.
#pragma once

#include "actors/train_coordinator.hpp"

#include <string_view>
#include <utility>
#include <vector>

namespace tandem::actors {

using train_self = train_coordinator_actor::stateful_pointer<train_state>;

// --- life --------------------------------------------------------------------------------------
void tell(train_self self, std::string_view level, std::string message,
          std::string type = "message", std::string data_json = "null");
void fail_job(train_self self, const error& why);    // the job ends here, with this reason
void start_over(train_self self, const error& why);  // from the newest checkpoint, after a pause
void leave(train_self self);                         // devices back, actor ends

// --- steps -------------------------------------------------------------------------------------
void begin_step(train_self self);  // the one after state.step
// What the device of this rank computes of one round.
train::order round_order(train_self self, train::order_kind kind, const train::step_rows& rows,
                         std::size_t round, int rank);

// --- versions ----------------------------------------------------------------------------------
void after_step(train_self self);  // what is due after state.step, then the next or the end
// Once no checkpoint is being written.
void when_saved(train_self self, std::function<void()> then);
// Writes the parameters of state.step unless they are on disk.
void save(train_self self);

// --- orders ------------------------------------------------------------------------------------
// Sends `make(rank)` to each of the first `count` devices and goes on with all outcomes in rank
// order. A failed order starts the job over or ends it; an answer that is out of date is dropped.
template <class Make, class Then>
void order_devices(train_self self, std::size_t count, Make make, Then then);

void order_failed(train_self self, const error& why);

template <class Make, class Then>
void order_devices(train_self self, std::size_t count, Make make, Then then) {
  struct gathering {
    std::vector<train::outcome> outcomes;
    std::size_t missing = 0;
  };
  auto& state = self->state;
  auto gathered = std::make_shared<gathering>();
  gathered->outcomes.resize(count);
  gathered->missing = count;
  for (std::size_t rank = 0; rank < count; ++rank) {
    const auto& member = state.members[rank];
    train::order what = make(static_cast<int>(rank));
    what.job = state.options.job;
    what.home = static_cast<int>(rank);
    self->request(member.device, state.options.order_deadline,
                  run_training{member.now.train_since, std::move(what)})
        .then(
            [=, at = state.incarnation](train::outcome& outcome) {
              if (self->state.incarnation != at) return;
              gathered->outcomes[rank] = std::move(outcome);
              if (--gathered->missing == 0) then(std::move(gathered->outcomes));
            },
            [=, at = state.incarnation](const caf::error& why) {
              if (self->state.incarnation == at) order_failed(self, from_caf(why));
            });
  }
}

template <class Make, class Then>
void order_all(train_self self, Make make, Then then) {
  order_devices(self, self->state.members.size(), std::move(make), std::move(then));
}

}  // namespace tandem::actors
