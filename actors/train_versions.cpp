// What comes of steps: metrics, validation, checkpoints, published versions, and the end.
#include "actors/train_flow.hpp"
#include "runtime/log.hpp"
#include "runtime/store/leadership.hpp"
#include "runtime/text/value.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <filesystem>

namespace tandem::actors {
namespace {

using outcomes = std::vector<train::outcome>;
using store::job_status;

constexpr auto publish_deadline = std::chrono::minutes(10);

store::store& book(train_self self) { return *self->state.options.context->store; }

train::due_work due(const train_state& state) {
  return train::due_after(state.plan.settings, state.step, state.plan.training->steps_per_epoch(),
                          state.plan.training->step_count());
}

// A job that was through when the process died only has its end left; and a step is told once.
bool is_news(const train_state& state) {
  return state.rows.step == state.step && state.step > 0 && state.told_step != state.step;
}

text::value metrics_of(train_self self) {
  const auto& state = self->state;
  const auto steps = state.plan.training->step_count();
  const double seconds =
      std::chrono::duration<double>(self->clock().now() - state.step_began).count();
  std::int64_t tokens = 0;
  for (const auto& round : state.rows.rounds)
    for (const auto& slot : round.slots) tokens += static_cast<std::int64_t>(slot.ids.size());
  text::value metrics;
  metrics.set("step", state.step);
  metrics.set("steps", steps);
  metrics.set("train_loss", state.loss.mean());
  metrics.set("train_mean_token_accuracy", state.loss.accuracy());
  if (state.validation.counted > 0) {
    metrics.set("valid_loss", state.validation.mean());
    metrics.set("valid_mean_token_accuracy", state.validation.accuracy());
  }
  metrics.set("learning_rate", state.learning_rate);
  metrics.set("grad_norm", state.norm);
  metrics.set("tokens_per_second", seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0);
  metrics.set("trained_tokens", state.trained_tokens);
  const auto an_epoch = std::max<std::int64_t>(1, state.plan.training->steps_per_epoch());
  metrics.set("epoch", static_cast<double>(state.step) / static_cast<double>(an_epoch));
  return metrics;
}

void next(train_self self);
void finish(train_self self);

// Two may wait for the same pause.
void after_a_pause(train_self self, std::function<void()> then) {
  auto& state = self->state;
  if (auto before = std::exchange(state.after_pause, nullptr)) {
    state.after_pause = [before = std::move(before), then = std::move(then)] {
      before();
      then();
    };
    return;
  }
  state.after_pause = std::move(then);
  self->delayed_send(self, state.options.retry_pause, go_on{state.incarnation});
}

// --- checkpoints -------------------------------------------------------------------------------

// Records and names of folders that are gone go too.
void forget_pruned(train_self self) {
  auto& state = self->state;
  const auto folder = checkpoint_folder(*state.options.context, state.options.job);
  const auto listed = book(self).list_checkpoints(state.options.job, "", 100);
  if (!listed) return;
  std::vector<std::string> gone;
  for (const auto& checkpoint : listed->rows) {
    std::error_code failed;
    if (std::filesystem::exists(train::checkpoint_path(folder, checkpoint.step), failed)) continue;
    if (auto removed = book(self).remove_checkpoint(state.options.job, checkpoint.step); removed)
      gone.push_back(checkpoint.model);
  }
  if (gone.empty()) return;
  self->send(state.options.serve_coordinator, withdraw_names{gone});
  for (const auto& name : gone) std::erase(state.checkpoint_names, name);
}

void saved(train_self self, const checkpoint_saved& done, const std::string& metrics_json) {
  auto& state = self->state;
  state.saving = false;
  state.saved_step = done.step;
  state.from_copies = done.from_copies;
  state.plan.checkpoint = done.path;
  store::checkpoint_record record;
  record.job = state.options.job;
  record.step = done.step;
  record.model = train::checkpoint_name(state.version_name, done.step);
  record.metrics_json = metrics_json;
  if (auto added = book(self).add_checkpoint(std::move(record)); !added)
    log_warning("job {}: {}", state.options.job, added.error().detail);
  tell(self, "info", fmt::format("Checkpoint created at step {}", done.step));
  forget_pruned(self);
  // One of them may begin the next checkpoint: then the others wait for that.
  while (!state.saving && !state.after_saved.empty()) {
    auto then = std::move(state.after_saved.front());
    state.after_saved.erase(state.after_saved.begin());
    then();
  }
}

// --- publishing --------------------------------------------------------------------------------

void published(train_self self, const std::string& name) {
  auto& state = self->state;
  if (!state.record.fine_tuned_model.empty()) return;
  if (auto set = book(self).set_model(state.options.job, name); set)
    state.record.fine_tuned_model = name;
}

publish_version version_of(train_self self, outcomes& made, bool checkpoint) {
  auto& state = self->state;
  publish_version what;
  what.names = {state.version_name};
  what.version = static_cast<std::uint64_t>(state.step);
  what.job = state.options.job;
  const bool full = state.plan.settings.method == train::training_method::full;
  what.kind = full ? "full" : "lora";
  if (state.apart) {
    what.checkpoint = state.plan.checkpoint;
    state.served_step = state.step;
  } else {
    what.adapter = std::move(made.front().adapter);
  }
  if (full) {
    for (std::size_t rank = 0; rank < made.size(); ++rank)
      what.by_device.push_back(
          {state.members[rank].now.device, {what.version, nullptr, std::move(made[rank].weights)}});
    // Two halves: whatever still names an older version would keep the idle one busy.
    if (!state.checkpoint_names.empty())
      self->send(state.options.serve_coordinator,
                 withdraw_names{std::exchange(state.checkpoint_names, {})});
  }
  if (checkpoint) {
    state.checkpoint_names.push_back(train::checkpoint_name(state.version_name, state.step));
    what.names.push_back(state.checkpoint_names.back());
  }
  return what;
}

// Makes the serving copy, hands it over and goes on; serving flips while the next step runs. The
// last version of a job waits for its place, any other is left out when there is none.
void publish(train_self self, bool checkpoint, bool must, std::function<void()> then);

void hand_out(train_self self, outcomes made, bool checkpoint, bool must,
              std::function<void()> then) {
  auto what = version_of(self, made, checkpoint);
  const auto name = what.names.front();
  self->request(self->state.options.serve_coordinator, publish_deadline, std::move(what))
      .then(
          [=, at = self->state.incarnation](const version_published&) {
            published(self, name);
            if (self->state.incarnation == at && must) then();
          },
          [=, at = self->state.incarnation](const caf::error& why) {
            tell(self, "warn",
                 fmt::format("A version could not be served: {}", from_caf(why).detail));
            if (self->state.incarnation == at && must) fail_job(self, from_caf(why));
          });
  if (!must) then();
}

// Of a group apart: devices read the version out of its checkpoint, each into its own memory.
void publish_saved(train_self self, bool must, std::function<void()> then) {
  when_saved(self, [=] {
    save(self);
    when_saved(self, [=] { hand_out(self, {}, true, must, then); });
  });
}

void publish(train_self self, bool checkpoint, bool must, std::function<void()> then) {
  auto& state = self->state;
  if (state.apart) return publish_saved(self, must, std::move(then));
  const bool full = state.plan.settings.method == train::training_method::full;
  run_phase(
      self, train::order_kind::publish, full ? all_homes(state) : std::vector{0},
      [=](int) {
        train::order what;
        what.step = self->state.step;
        what.version = static_cast<std::uint64_t>(self->state.step);
        return what;
      },
      [=](outcomes made) {
        auto& now = self->state;
        const bool whole = std::all_of(
            made.begin(), made.begin() + (full ? std::ssize(made) : 1),
            [](const auto& one) { return one.weights != nullptr || one.adapter != nullptr; });
        if (whole) return hand_out(self, std::move(made), checkpoint, must, then);
        if (!must) {
          tell(self, "info",
               fmt::format("Step {} is not published: streams still run on both serving copies",
                           now.step));
          return then();
        }
        after_a_pause(self, [=] { publish(self, checkpoint, must, then); });
      });
}

// --- validation --------------------------------------------------------------------------------

void validate_batch(train_self self, std::int64_t batch, std::function<void()> then) {
  const auto& planner = self->state.plan.validation;
  if (batch >= planner->evaluation_batches()) return then();
  auto rows = std::make_shared<train::step_rows>(planner->evaluation_rows(batch));
  auto round = std::make_shared<std::size_t>(0);
  auto run = std::make_shared<std::function<void()>>();
  // Held by the closures it makes until the batch is through.
  *run = [=, weak = std::weak_ptr<std::function<void()>>(run)] {
    if (*round >= rows->rounds.size()) return validate_batch(self, batch + 1, then);
    const auto again = weak.lock();
    run_phase(
        self, train::order_kind::evaluate, all_homes(self->state),
        [=](int home) {
          return round_order(self, train::order_kind::evaluate, *rows, *round, home);
        },
        [=](const outcomes& done) {
          for (const auto& outcome : done) self->state.validation.add(outcome.losses);
          ++*round;
          (*again)();
        });
  };
  (*run)();
}

void validate(train_self self, std::function<void()> then) {
  self->state.validation = {};
  if (!self->state.plan.validation) return then();
  validate_batch(self, 0, std::move(then));
}

// --- the end -----------------------------------------------------------------------------------

void succeed(train_self self, const results_written& results) {
  auto& state = self->state;
  (void)book(self).add_result_file(state.options.job, results.file);
  text::value data;
  data.set("step", state.step);
  data.set("parameters_sha256", results.parameters_sha256);
  tell(self, "info",
       fmt::format("New fine-tuned model created: {} (parameters' SHA-256 {})", state.version_name,
                   results.parameters_sha256),
       "message", data.to_json());
  if (auto done =
          book(self).change_status(state.options.job, {job_status::running}, job_status::succeeded);
      !done)
    log_info("job {}: {}", state.options.job, done.error().detail);
  leave(self);
}

void finish(train_self self) {
  auto& state = self->state;
  self->request(state.clerk, caf::infinite, write_results{state.options.job, state.plan.checkpoint})
      .then([=](const results_written& results) { succeed(self, results); },
            [=](const caf::error& why) { fail_job(self, from_caf(why)); });
}

void next(train_self self) {
  auto& state = self->state;
  if (state.step >= state.plan.training->step_count()) {
    return when_saved(self, [=] {
      save(self);
      when_saved(self, [=] { finish(self); });
    });
  }
  if (state.wanted == train_state::wish::go_on)
    return look_at_homes(self, [=] {
      self->state.wanted == train_state::wish::go_on ? begin_step(self) : next(self);
    });
  when_saved(self, [=] {
    save(self);
    when_saved(self, [=] { leave(self); });
  });
}

void hand_over(train_self self) {
  const auto work = due(self->state);
  if (work.checkpoint) when_saved(self, [=] { save(self); });
  if (!work.publish) return next(self);
  publish(self, work.checkpoint, work.last, [=] { next(self); });
}

void tell_step(train_self self) {
  auto& state = self->state;
  state.told_step = state.step;
  const auto steps = state.plan.training->step_count();
  const auto metrics = metrics_of(self);
  tell(self, "info",
       fmt::format("Step {}/{}: training loss={:.4f}{}", state.step, steps, state.loss.mean(),
                   state.validation.counted > 0
                       ? fmt::format(", validation loss={:.4f}", state.validation.mean())
                       : ""),
       "metrics", metrics.to_json());
  state.metrics = metrics;
  const auto left = static_cast<std::int64_t>(state.clock.left(steps - state.step));
  // Refused for a job that no longer runs: its record says why, and job_changed is on its way.
  (void)book(self).set_progress(
      state.options.job, {state.step, steps, state.trained_tokens, std::time(nullptr) + left});
}

}  // namespace

void when_saved(train_self self, std::function<void()> then) {
  auto& state = self->state;
  if (!state.saving) return then();
  state.after_saved.push_back(std::move(then));
}

void save(train_self self) {
  const auto& state = self->state;
  if (state.saved_step == state.step && !state.plan.checkpoint.empty()) return;
  ensure(!state.saving, "two checkpoints at once");
  send_save(self, checkpoint_order(self));
}

// A head that is not sure of its lead keeps what it has, and tries again: either the store answers
// again, or another head leads and this process ends.
void send_save(train_self self, const save_checkpoint& order) {
  auto& state = self->state;
  state.saving = true;
  const auto metrics = order.facts.metrics.to_json();
  self->request(state.clerk, caf::infinite, order)
      .then(
          [=, at = state.incarnation](const checkpoint_saved& done) {
            if (self->state.incarnation == at) saved(self, done, metrics);
          },
          [=, at = state.incarnation](const caf::error& why) {
            auto& now = self->state;
            if (now.incarnation != at) return;
            const auto reason = from_caf(why);
            if (is_refusal(why) && reason.param == store::lead_unsure)
              return after_a_pause(self, [=] { send_save(self, order); });
            if (now.rescued_from) {
              log_warning("job {}: step {} could not be saved: {}", now.options.job, now.step,
                          reason.detail);
              return fall_back(self, error(*now.rescued_from));
            }
            // A device that died meanwhile.
            if (!is_refusal(why) || reason.code == errc::unavailable)
              return start_over(self, reason);
            fail_job(self, reason);
          });
}

save_checkpoint checkpoint_order(train_self self) {
  const auto& state = self->state;
  const auto& context = *state.options.context;
  train::checkpoint_facts facts;
  facts.job = state.options.job;
  facts.model_path = context.model_path;
  facts.base_name = context.base_name;
  facts.step = state.step;
  facts.step_count = state.plan.training->step_count();
  facts.trained_tokens = state.tokens_at_step;
  facts.settings = state.plan.settings;
  facts.metrics = is_news(state) ? metrics_of(self) : state.metrics;
  facts.layout = state.layout.parameters;
  save_checkpoint order;
  order.facts = std::move(facts);
  order.group = state.group;
  order.served_step = state.served_step;
  if (!state.apart) return order;
  order.couriers = couriers(state);
  for (std::size_t rank = 0; rank < state.members.size(); ++rank) {
    const auto& shard = state.layout.shards[rank];
    order.shards.push_back(
        {static_cast<int>(rank), train::arena_kind::parameters, shard.begin, shard.floats()});
  }
  return order;
}

void after_step(train_self self) {
  auto& state = self->state;
  if (!is_news(state)) return hand_over(self);
  if (!due(state).checkpoint) {
    state.validation = {};
    tell_step(self);
    return hand_over(self);
  }
  validate(self, [=] {
    tell_step(self);
    hand_over(self);
  });
}

}  // namespace tandem::actors
