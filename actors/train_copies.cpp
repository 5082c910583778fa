// What is left when a member of a group apart dies: its shard has a copy at its buddy, brought
// there while the next step accumulates. With that the step that was done last is saved, by whoever
// is left, and the job goes on from there: nothing but the step under way is done again. Where the
// copy is not whole, or an update was under way, the job goes on from the newest checkpoint as
// ever.
#include "actors/fault.hpp"
#include "actors/train_flow.hpp"
#include "runtime/log.hpp"
#include "runtime/text/value.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::actors {
namespace {

constexpr auto copy_deadline = std::chrono::minutes(30);  // each range has one of its own

constexpr std::int64_t no_step = -1;

// Who keeps a whole copy of the rank's shard of this step; -1: nobody.
int copy_at(const train_state& state, std::size_t rank) {
  const int buddy = state.buddies[rank];
  const bool there = buddy >= 0 && state.copied_step[rank] == state.step;
  return there && !state.gone.contains(buddy) ? buddy : -1;
}

bool may_rescue(const train_state& state) {
  if (!state.whole || !state.apart || state.members.size() < 2) return false;
  if (state.saved_step == state.step) return false;  // it is on disk
  return std::ranges::all_of(
      state.gone, [&](int rank) { return copy_at(state, static_cast<std::size_t>(rank)) >= 0; });
}

void copy_ended(train_self self) {
  auto& state = self->state;
  if (--state.copying > 0) return;
  for (const auto& then : std::exchange(state.after_copied, {})) then();
}

// In a person's words, and as data: what it cost.
void tell_rescued(train_self self, const error& why) {
  const auto& state = self->state;
  const bool between = state.rows.step == state.step;
  const auto again = between ? "nothing is done again" : "nothing but this step is done again";
  const auto when = between ? fmt::format("after step {}", state.step)
                            : fmt::format("in step {}", state.step + 1);
  text::value data;
  data.set("step", state.step);
  data.set("steps_done_again", std::int64_t{between ? 0 : 1});
  text::value::array names;
  std::string lost;
  for (const int rank : state.from_copies) {
    const auto at = static_cast<std::size_t>(rank);
    const auto& name = state.members[at].now.device;
    const auto& buddy = state.members[static_cast<std::size_t>(state.buddies[at])].now.device;
    names.emplace_back(name);
    lost += fmt::format("{}Device {} died {}: its optimizer state comes from its copy on {}",
                        lost.empty() ? "" : "; ", name, when, buddy);
  }
  data.set("from_copies", std::move(names));
  if (lost.empty())
    lost =
        fmt::format("Interrupted {}: {}; what step {} left is saved", when, why.detail, state.step);
  tell(self, "warn", fmt::format("{}, {}", lost, again), "message", data.to_json());
}

}  // namespace

void copy_shards(train_self self) {
  auto& state = self->state;
  for (std::size_t rank = 0; rank < state.buddies.size(); ++rank) {
    const int buddy = state.buddies[rank];
    if (buddy < 0) continue;
    ++state.copying;
    self->request(state.members[static_cast<std::size_t>(buddy)].courier, copy_deadline,
                  keep_ranges{buddy, train::copied_ranges(state.layout, static_cast<int>(rank)),
                              couriers(state)})
        .then(
            [=, at = state.incarnation, step = state.step](const ranges_moved&) {
              if (self->state.incarnation != at) return;
              self->state.copied_step[rank] = step;
              copy_ended(self);
            },
            // No order needs it: the job goes on without, and tries again after the next step.
            [=, at = state.incarnation](const caf::error& why) {
              if (self->state.incarnation != at) return;
              log_warning("job {}: the shard of device {} has no copy of step {}: {}",
                          self->state.options.job, self->state.members[rank].now.device,
                          self->state.step, from_caf(why).detail);
              copy_ended(self);
            });
  }
}

void when_copied(train_self self, std::function<void()> then) {
  auto& state = self->state;
  if (state.copying == 0) return then();
  state.after_copied.push_back(std::move(then));
}

void shards_change(train_self self) {
  auto& state = self->state;
  state.whole = false;
  std::fill(state.copied_step.begin(), state.copied_step.end(), no_step);
}

bool rescue(train_self self, const error& why) {
  auto& state = self->state;
  if (!may_rescue(state)) return false;
  log_warning("job {}: {}; what step {} left is saved", state.options.job, why.detail, state.step);
  give_up_work(self);
  state.leaving = true;
  state.rescued_from = why;
  state.trained_tokens = state.tokens_at_step;
  if (state.rows.step == state.step) state.validation = {};  // done again, or told
  auto order = checkpoint_order(self);
  for (std::size_t rank = 0; rank < state.members.size(); ++rank)
    order.copies_at.push_back(copy_at(state, rank));
  for (const int rank : state.gone) {
    order.group[static_cast<std::size_t>(rank)] = nullptr;
    order.couriers[static_cast<std::size_t>(rank)] = nullptr;
  }
  send_save(self, order);
  when_saved(self, [=] {
    auto& now = self->state;
    tell_rescued(self, why);
    now.owes_step = now.rows.step == now.step;
    now.wanted == train_state::wish::go_on ? move(self) : leave(self);
  });
  return true;
}

}  // namespace tandem::actors
