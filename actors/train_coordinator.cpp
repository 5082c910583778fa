// The life of a job: prepared, opened on devices, left. What becomes of its steps stands in
// train_steps.cpp, of its versions in train_versions.cpp.
#include "actors/train_coordinator.hpp"

#include "actors/fault.hpp"
#include "actors/train_flow.hpp"
#include "runtime/log.hpp"
#include "runtime/store/leadership.hpp"
#include "runtime/text/value.hpp"
#include "runtime/train/job_options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::actors {
namespace {

using store::job_status;

constexpr auto lease_deadline = std::chrono::seconds(10);

store::store& book(train_self self) { return *self->state.options.context->store; }

// Of the store; its two connections may come back one after the other.
bool is_silence(const error& why) {
  return why.param == store::lead_unsure ||
         (why.param == "store.url" &&
          (why.code == errc::unavailable || why.code == errc::timed_out));
}

// Refused when the record says something else meanwhile.
result<void> go_to(train_self self, std::vector<job_status> from, job_status to) {
  auto changed = book(self).change_status(self->state.options.job, std::move(from), to);
  if (changed) {
    self->state.record = *std::move(changed);
    return {};
  }
  log_info("job {}: {}", self->state.options.job, changed.error().detail);
  return changed.error();
}

// --- preparing ---------------------------------------------------------------------------------

void prepare(train_self self);

// What would begin was not written down: the record wins, or the store is asked again.
void begin_refused(train_self self, const error& why) {
  if (!is_silence(why)) return leave(self);
  self->state.plan = {};
  fail_job(self, why);
}

void prepared(train_self self, prepared_job ready) {
  auto& state = self->state;
  const bool first = state.plan.training == nullptr;
  state.plan = std::move(ready);
  if (first) {
    for (const auto& note : state.plan.notes) tell(self, "info", note);
    const auto status = state.record.status;
    if (status == job_status::validating_files)
      if (auto gone = go_to(self, {job_status::validating_files}, job_status::queued); !gone)
        return begin_refused(self, gone.error());
    if (auto gone = go_to(self, {job_status::queued, job_status::running}, job_status::running);
        !gone)
      return begin_refused(self, gone.error());
  }
  const auto shown = train::shown_settings(state.plan.settings).to_json();
  if (auto kept = book(self).set_settings(state.options.job, shown); !kept)
    return begin_refused(self, kept.error());
  borrow_devices(self);
}

void prepare(train_self self) {
  auto& state = self->state;
  self->request(state.clerk, caf::infinite, prepare_job{state.options.job})
      .then(
          [=, at = state.incarnation](prepared_job& ready) {
            if (self->state.incarnation == at) prepared(self, std::move(ready));
          },
          [=, at = state.incarnation](const caf::error& why) {
            if (self->state.incarnation != at) return;
            const auto reason = from_caf(why);
            reason.code == errc::cancelled ? leave(self) : fail_job(self, reason);
          });
}

// --- what goes wrong, and what others want -----------------------------------------------------

void look_at_record(train_self self) {
  auto& state = self->state;
  auto now = book(self).find_job(state.options.job);
  if (!now && now.error().code != errc::not_found) return;  // its next change is heard of again
  if (!now) return leave(self);                             // the record is gone: so is the job
  const auto status = now->status;
  state.record = *std::move(now);
  if (status == job_status::cancelled || status == job_status::failed) {
    state.given_up->store(true);
    return leave(self);
  }
  // A pause that was taken back before the step's end never happened.
  const bool paused = status == job_status::paused;
  if (state.wanted == train_state::wish::park) return;
  state.wanted = paused ? train_state::wish::leave : train_state::wish::go_on;
  if (status == job_status::queued) (void)go_to(self, {job_status::queued}, job_status::running);
  // Nothing that is worth a checkpoint is under way yet.
  if (paused && state.group.empty()) return leave(self);
  leave_if_stranded(self);
}

// A new coordinator knows nothing of us. Its grants and revocations come as ever.
void register_again(train_self self, const coordinator_actor& now) {
  auto& state = self->state;
  state.options.coordinator = now;
  if (state.members.empty()) return;  // devices are asked for anew, or not wanted yet
  self->request(now, lease_deadline, want_training{state.options.job, 0, self})
      .then(
          [=, at = state.incarnation](const std::vector<shared_device>&) {
            // Not while devices open the job: they are told of when they have.
            if (self->state.incarnation == at && !self->state.group.empty()) tell_resident(self);
          },
          [=, at = state.incarnation](const caf::error& why) {
            if (self->state.incarnation == at) start_over(self, from_caf(why));
          });
}

}  // namespace

void tell_progress(train_self self) {
  const auto& state = self->state;
  self->send(state.options.coordinator,
             job_progress{state.options.job, state.step, state.plan.training->step_count(),
                          state.trained_tokens, state.loss.mean()});
}

void tell(train_self self, std::string_view level, std::string message, std::string type,
          std::string data_json) {
  store::event_record event;
  event.job = self->state.options.job;
  event.level = level;
  event.type = std::move(type);
  event.message = std::move(message);
  event.data_json = std::move(data_json);
  if (auto told = book(self).add_event(std::move(event)); !told)
    log_warning("job {}: an event is lost: {}", self->state.options.job, told.error().detail);
}

void order_failed(train_self self, const error& why) {
  switch (why.code) {
    case errc::conflict:     // an older lease, or another order in flight
    case errc::unavailable:  // a device without its model yet
    case errc::internal:     // a device died: its monitor tells the rest
    case errc::timed_out:
      return start_over(self, why);
    default:
      return fail_job(self, why);
  }
}

void start_over(train_self self, const error& why) {
  auto& state = self->state;
  close_job(self);
  if (++state.attempts > state.options.attempts_max)
    return fail_job(self, {errc::unavailable,
                           fmt::format("given up after {} attempts without a step done: {}",
                                       state.options.attempts_max, why.detail),
                           ""});
  log_warning("job {}: {}; trying again ({} of {})", state.options.job, why.detail, state.attempts,
              state.options.attempts_max);
  if (state.attempts == 1)
    tell(self, "warn",
         fmt::format("Interrupted after step {}: {}. Going on from the newest checkpoint.",
                     state.step, why.detail));
  self->delayed_send(self, state.options.retry_pause, go_on{state.incarnation});
}

void wait_for_devices(train_self self) {
  auto& state = self->state;
  close_job(self);
  if (!std::exchange(state.lacks_devices, true))
    tell(self, "warn", "No device is up to train on: the job waits for one.");
  self->delayed_send(self, state.options.retry_pause, go_on{state.incarnation});
}

void fail_job(train_self self, const error& why) {
  auto& state = self->state;
  // Nothing is wrong with the job: either the store answers again, or another head leads and this
  // process ends.
  if (is_silence(why)) {
    close_job(self);
    return self->delayed_send(self, state.options.retry_pause, go_on{state.incarnation});
  }
  log_error("job {} failed: {}", state.options.job, why.detail);
  // Refused for one that has ended meanwhile: then that is its end.
  (void)book(self).fail_job(state.options.job, why);
  leave(self);
}

void leave(train_self self) {
  auto& state = self->state;
  state.given_up->store(true);
  free_devices(self);
  self->send_exit(state.clerk, caf::exit_reason::user_shutdown);
  self->quit();
}

train_coordinator_actor::behavior_type train_coordinator(train_self self, train_options options) {
  keep_exception_text(self);
  auto& state = self->state;
  state.options = std::move(options);
  state.given_up = std::make_shared<std::atomic<bool>>(false);
  const auto& context = state.options.context;
  state.clerk = context->make_clerk ? context->make_clerk(self->system(), state.given_up)
                : context->own_threads
                    ? self->spawn<caf::detached + caf::linked>(train_clerk, context, state.given_up)
                    : self->spawn<caf::linked>(train_clerk, context, state.given_up);
  if (context->make_clerk) self->link_to(state.clerk);
  self->set_down_handler([=](const caf::down_msg& down) {
    for (const auto& member : self->state.members)
      if (member.device.address() == down.source)
        return start_over(self, {errc::unavailable,
                                 fmt::format("device {} died: {}", member.now.device,
                                             from_caf(down.reason).detail),
                                 ""});
  });
  self->set_exit_handler([=](const caf::exit_msg& end) {
    self->state.given_up->store(true);
    self->quit(end.reason);
  });
  if (auto job = book(self).find_job(state.options.job))
    state.record = *std::move(job);
  else
    state.wanted = train_state::wish::leave;
  state.version_name =
      train::version_name(context->base_name, state.record.suffix, state.options.job);
  self->send(self, go_on{0});
  return {
      [=](const job_changed&) { look_at_record(self); },
      [=](const training_granted& fact) { granted(self, fact.now); },
      [=](const training_revoked& fact) { revoked(self, fact.now); },
      [=](homes_changed) {
        self->state.homes_changed = true;
        look_who_is_in_reach(self);
        move_if_stranded(self);
      },
      [=](look_at_work) {
        self->state.looks_again = false;
        deal(self);
      },
      [=](const coordinator_changed& fact) { register_again(self, fact.now); },
      [=](park) {
        self->state.wanted = train_state::wish::park;
        self->state.group.empty() ? leave(self) : leave_if_stranded(self);
      },
      [=](const go_on& order) {
        auto& now = self->state;
        if (order.incarnation != now.incarnation) return;
        if (auto then = std::exchange(now.after_pause, nullptr)) return then();
        now.wanted == train_state::wish::go_on ? prepare(self) : leave(self);
      },
  };
}

}  // namespace tandem::actors
