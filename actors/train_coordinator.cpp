// The life of a job: prepared, opened on devices, left. What becomes of its steps stands in
// train_steps.cpp, of its versions in train_versions.cpp.
#include "actors/train_coordinator.hpp"

#include "actors/fault.hpp"
#include "actors/train_flow.hpp"
#include "runtime/log.hpp"
#include "runtime/text/value.hpp"
#include "runtime/train/job_options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::actors {
namespace {

using store::job_status;

constexpr auto lease_deadline = std::chrono::seconds(10);
constexpr auto open_deadline = std::chrono::minutes(30);
constexpr std::uint64_t mib = 1 << 20;

store::store& book(train_self self) { return *self->state.options.context->store; }

// False when the record says something else meanwhile: then the record wins.
bool go_to(train_self self, std::vector<job_status> from, job_status to) {
  auto changed = book(self).change_status(self->state.options.job, std::move(from), to);
  if (changed) {
    self->state.record = *std::move(changed);
    return true;
  }
  log_info("job {}: {}", self->state.options.job, changed.error().detail);
  return false;
}

std::string describe(const train::memory_plan& plan) {
  return fmt::format(
      "{} MiB of device memory: parameters {}, gradients {}, optimizer {}, activations {}, "
      "workspace {}, serving copies {}{}",
      plan.total() / mib, plan.parameters / mib, plan.gradients / mib, plan.optimizer / mib,
      plan.activations / mib, plan.workspace / mib, plan.serving_copies / mib,
      plan.guests > 0 ? fmt::format(", other devices' work {}", plan.guests / mib) : "");
}

// --- opening -----------------------------------------------------------------------------------

void prepare(train_self self);
void borrow_devices(train_self self);
void free_devices(train_self self);

void tell_resident(train_self self) {
  auto& state = self->state;
  job_resident resident{state.options.job, {}, state.bytes_each};
  for (const auto& member : state.members) resident.devices.push_back(member.now.device);
  self->send(state.options.coordinator, std::move(resident));
}

void all_joined(train_self self) {
  auto& state = self->state;
  state.saved_step = state.step;
  tell_resident(self);
  tell(self, "info",
       fmt::format("{} on {} {}", state.step == 0 ? "Training started" : "Training goes on",
                   state.members.size(), state.members.size() == 1 ? "device" : "devices") +
           (state.step > 0 ? fmt::format(" after step {}", state.step) : ""));
  if (state.step >= state.plan.training->step_count())
    after_step(self);
  else
    begin_step(self);
}

// Whose memory this member reads and writes itself.
std::vector<std::shared_ptr<train::trainer_memory>> seen_by(const train_state& state,
                                                            std::size_t rank) {
  std::vector<std::shared_ptr<train::trainer_memory>> group(state.group.size());
  const auto shares = shares_memory(state, static_cast<int>(rank));
  for (std::size_t peer = 0; peer < group.size(); ++peer)
    if (shares[peer]) group[peer] = state.group[peer];
  return group;
}

void join(train_self self) {
  auto& state = self->state;
  if (state.members.size() == 1) return all_joined(self);
  auto missing = std::make_shared<std::size_t>(state.members.size());
  for (std::size_t rank = 0; rank < state.members.size(); ++rank)
    self->request(
            state.members[rank].device, lease_deadline,
            join_training{state.members[rank].now.at, state.options.job, seen_by(state, rank)})
        .then(
            [=, at = state.incarnation] {
              if (self->state.incarnation == at && --*missing == 0) all_joined(self);
            },
            [=, at = state.incarnation](const caf::error& why) {
              if (self->state.incarnation == at) order_failed(self, from_caf(why));
            });
}

void all_opened(train_self self, const std::vector<training_opened>& answers) {
  auto& state = self->state;
  state.group.clear();
  std::vector<train::opened> opened;
  for (std::size_t rank = 0; rank < answers.size(); ++rank) {
    state.members[rank].courier = answers[rank].courier;
    opened.push_back(answers[rank].facts);
  }
  state.layout = opened.front().layout;
  state.places.assign(opened.size(), train_state::place::none);
  state.to_be_dropped.assign(opened.size(), false);
  for (const auto& one : opened) {
    state.group.push_back(one.shared);
    if (one.step != opened.front().step)
      return start_over(self, {errc::internal, "devices opened the job at different steps", ""});
  }
  state.bytes_each = opened.front().memory.total();
  state.work.emplace(static_cast<int>(state.members.size()));
  state.step = opened.front().step;
  state.trained_tokens = state.plan.trained_tokens;
  state.checkpoint_names = state.plan.checkpoint_names;
  tell(self, "info",
       fmt::format("{} trainable parameters; {}", opened.front().trainable_parameters,
                   describe(opened.front().memory)));
  join(self);
}

// A device without room is left out where others have it.
void open_failed(train_self self, const std::string& device, const error& why) {
  auto& state = self->state;
  if (why.code != errc::no_memory || state.members.size() == 1) return order_failed(self, why);
  tell(self, "warn", fmt::format("Device {} is left out: {}", device, why.detail));
  state.too_small.insert(device);
  free_devices(self);
  borrow_devices(self);
}

void open(train_self self) {
  auto& state = self->state;
  auto opened = std::make_shared<std::vector<training_opened>>(state.members.size());
  auto missing = std::make_shared<std::size_t>(state.members.size());
  const auto& context = *state.options.context;
  state.apart = context.devices_apart ||
                std::any_of(state.members.begin(), state.members.end(), [&](const auto& member) {
                  return member.device.node() != self->node();
                });
  for (std::size_t rank = 0; rank < state.members.size(); ++rank) {
    const auto& member = state.members[rank];
    self->monitor(member.device);
    train::open_order order{state.options.job,
                            context.model_path,
                            state.plan.settings,
                            static_cast<int>(state.members.size()),
                            static_cast<int>(rank),
                            state.plan.checkpoint,
                            state.apart};
    self->request(member.device, open_deadline, open_training{member.now.at, std::move(order)})
        .then(
            [=, at = state.incarnation](training_opened& one) {
              if (self->state.incarnation != at) return;
              (*opened)[rank] = std::move(one);
              if (--*missing == 0) all_opened(self, *opened);
            },
            [=, at = state.incarnation, device = member.now.device](const caf::error& why) {
              if (self->state.incarnation == at) open_failed(self, device, from_caf(why));
            });
  }
}

void borrow_devices(train_self self) {
  auto& state = self->state;
  self->request(state.options.coordinator, lease_deadline,
                want_training{state.options.job, 0, self})
      .then(
          [=, at = state.incarnation](std::vector<shared_device>& shared) {
            auto& now = self->state;
            if (now.incarnation != at) return;
            std::erase_if(shared, [&](const shared_device& one) {
              return now.too_small.contains(one.now.device);
            });
            if (shared.empty())
              return start_over(self, {errc::unavailable, "no device is up to train on", ""});
            const auto count =
                train::device_count_for(static_cast<int>(shared.size()), now.plan.settings.slots);
            now.members.clear();
            for (int rank = 0; rank < count; ++rank) {
              auto& one = shared[static_cast<std::size_t>(rank)];
              now.members.push_back({one.now, one.device, 0, {}});
            }
            open(self);
          },
          [=, at = state.incarnation](const caf::error& why) {
            if (self->state.incarnation == at) start_over(self, from_caf(why));
          });
}

void prepared(train_self self, prepared_job ready) {
  auto& state = self->state;
  const bool first = state.plan.training == nullptr;
  state.plan = std::move(ready);
  if (first) {
    for (const auto& note : state.plan.notes) tell(self, "info", note);
    const auto status = state.record.status;
    if (status == job_status::validating_files &&
        !go_to(self, {job_status::validating_files}, job_status::queued))
      return leave(self);
    if (!go_to(self, {job_status::queued, job_status::running}, job_status::running))
      return leave(self);
  }
  const auto shown = train::shown_settings(state.plan.settings).to_json();
  if (auto kept = book(self).set_settings(state.options.job, shown); !kept) return leave(self);
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

void free_devices(train_self self) {
  auto& state = self->state;
  ++state.incarnation;
  for (const auto& member : state.members) {
    self->demonitor(member.device.address());
    self->request(member.device, open_deadline, close_training{member.now.at, state.options.job})
        .then([] {}, [](const caf::error&) {});
  }
  state.members.clear();
  state.group.clear();
  state.layout = {};
  state.after_saved.clear();
  state.work.reset();
  state.under_way = {};
  state.after_pause = nullptr;
  state.saving = false;
  self->send(state.options.coordinator, return_devices{state.options.job});
}

void look_at_record(train_self self) {
  auto& state = self->state;
  auto now = book(self).find_job(state.options.job);
  if (!now) return leave(self);  // the record is gone: so is the job
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
  if (status == job_status::queued) go_to(self, {job_status::queued}, job_status::running);
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
  free_devices(self);
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

void fail_job(train_self self, const error& why) {
  auto& state = self->state;
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
