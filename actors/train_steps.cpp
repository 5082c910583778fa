// One optimizer step: its rounds on every device, the norm of what came of them, the update.
#include "actors/train_flow.hpp"
#include "runtime/text/value.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tandem::actors {
namespace {

using std::chrono::duration;
using outcomes = std::vector<train::outcome>;

// This home's slots of a round, in slot order.
std::vector<train::slot_rows> slots_of(const train::round_rows& round, int home, int homes) {
  const auto slots = round.slots.size();
  const auto each = slots / static_cast<std::size_t>(homes);
  const auto begin = round.slots.begin() + static_cast<std::ptrdiff_t>(each) * home;
  return {begin, begin + static_cast<std::ptrdiff_t>(each)};
}

}  // namespace

train::order round_order(train_self self, train::order_kind kind, const train::step_rows& rows,
                         std::size_t round, int home) {
  train::order what;
  what.kind = kind;
  what.step = rows.step;
  what.round = static_cast<int>(round);
  what.slots = slots_of(rows.rounds[round], home, static_cast<int>(self->state.members.size()));
  what.scale = rows.counted > 0 ? 1.0 / static_cast<double>(rows.counted) : 0.0;
  return what;
}

namespace {

train::order plain_order(train_self self, train::order_kind kind) {
  train::order what;
  what.kind = kind;
  what.step = self->state.rows.step;
  return what;
}

void run_round(train_self self, std::size_t round);
void measure_norm(train_self self);

std::int64_t tokens_of(const train::round_rows& round) {
  std::int64_t tokens = 0;
  for (const auto& slot : round.slots) tokens += static_cast<std::int64_t>(slot.ids.size());
  return tokens;
}

void round_done(train_self self, std::size_t round) {
  auto& state = self->state;
  state.trained_tokens += tokens_of(state.rows.rounds[round]);
  tell_progress(self);
  if (round + 1 < state.rows.rounds.size()) return run_round(self, round + 1);
  measure_norm(self);
}

void run_round(train_self self, std::size_t round) {
  run_phase(
      self, train::order_kind::accumulate, all_homes(self->state),
      [=](int home) {
        return round_order(self, train::order_kind::accumulate, self->state.rows, round, home);
      },
      [=](const outcomes& done) {
        auto& state = self->state;
        for (const auto& outcome : done) state.loss.add(outcome.losses);
        if (state.members.size() == 1) return round_done(self, round);
        run_phase(
            self, train::order_kind::reduce, all_homes(state),
            [=](int) {
              auto what = plain_order(self, train::order_kind::reduce);
              what.round = static_cast<int>(round);
              return what;
            },
            [=](const outcomes&) { round_done(self, round); });
      });
}

std::string example_list(const std::vector<std::int64_t>& examples) {
  constexpr std::size_t most = 16;
  std::string list;
  for (std::size_t i = 0; i < std::min(most, examples.size()); ++i)
    list += fmt::format("{}{}", i == 0 ? "" : ", ", examples[i]);
  return examples.size() > most ? list + ", …" : list;
}

// What is on disk is the last good state; the job's record says where it stopped and why.
void stop_not_finite(train_self self) {
  auto& state = self->state;
  const auto step = state.rows.step;
  const error why{
      errc::bad_request,
      fmt::format("{} is not finite in step {} of {} (loss {}, gradient norm {}; examples {} of "
                  "the training file, counted from 0). The job stopped at the checkpoint of step "
                  "{}. Lower learning_rate, or look at these examples",
                  std::isfinite(state.loss.mean()) ? "The gradient" : "The loss", step,
                  state.plan.training->step_count(), state.loss.mean(), state.norm,
                  example_list(state.plan.training->examples_of(step)), state.step),
      "learning_rate"};
  // Parameters are still those of the step before.
  when_saved(self, [=] {
    save(self);
    when_saved(self, [=] { fail_job(self, why); });
  });
}

void step_done(train_self self) {
  auto& state = self->state;
  state.step = state.rows.step;
  state.tokens_at_step = state.trained_tokens;
  state.whole = true;
  state.attempts = 0;
  state.clock.add(duration<double>(self->clock().now() - state.step_began).count());
  tell_progress(self);
  copy_shards(self);
  after_step(self);
}

void update(train_self self) {
  auto& state = self->state;
  state.learning_rate = train::learning_rate_at(state.plan.settings, state.rows.step,
                                                state.plan.training->step_count());
  shards_change(self);
  const auto scale = train::clip_scale(state.norm, state.plan.settings.clip_norm);
  run_phase(
      self, train::order_kind::update, all_homes(state),
      [=](int) {
        auto what = plain_order(self, train::order_kind::update);
        what.learning_rate = self->state.learning_rate;
        what.gradient_scale = scale;
        return what;
      },
      [=](const outcomes&) { step_done(self); });
}

void measure_norm(train_self self) {
  run_phase(
      self, train::order_kind::norm, all_homes(self->state),
      [=](int) { return plain_order(self, train::order_kind::norm); },
      [=](const outcomes& done) {
        auto& state = self->state;
        state.norm = train::global_norm(done);
        if (!std::isfinite(state.norm) || !std::isfinite(state.loss.mean()))
          return stop_not_finite(self);
        // A checkpoint that is being written reads the parameters, and so do copies: they go first.
        when_copied(self, [=] { when_saved(self, [=] { update(self); }); });
      });
}

}  // namespace

void begin_step(train_self self) {
  auto& state = self->state;
  state.rows = state.plan.training->rows_of(state.step + 1);
  state.loss = {};
  state.told_step = 0;
  state.step_began = self->clock().now();
  run_round(self, 0);
}

}  // namespace tandem::actors
