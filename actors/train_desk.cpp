#include "actors/train_desk.hpp"

#include "actors/fault.hpp"
#include "runtime/log.hpp"
#include "runtime/train/checkpoint.hpp"
#include "runtime/train/step_math.hpp"

#include <algorithm>
#include <utility>

namespace tandem::actors {
namespace {

using self_pointer = train_desk_actor::stateful_pointer<train_desk_state>;
using store::job_status;

constexpr auto load_deadline = std::chrono::minutes(10);
constexpr int page_size = 100;
constexpr auto silent_pause = std::chrono::seconds(1);

bool waits(job_status status) {
  return status == job_status::validating_files || status == job_status::queued ||
         status == job_status::running;
}

// What there is to do shows once the store answers.
void look_again_if_silent(self_pointer self, const error& why) {
  if (why.code != errc::unavailable && why.code != errc::timed_out) return;
  if (!std::exchange(self->state.looks_again, true))
    self->delayed_send(self, silent_pause, job_changed{});
}

void take_up_next(self_pointer self) {
  auto& state = self->state;
  if (state.job || state.parking) return;
  for (const auto& job : state.context->store->unfinished_jobs()) {
    if (!waits(job.status)) continue;
    if (job.model != state.context->base_name) {
      // Another base is served today; the job waits for its own to come back.
      log_warning("job {} is of {}, which is not served now", job.id, job.model);
      continue;
    }
    state.running = job.id;
    state.job = self->spawn<caf::monitored>(
        train_coordinator,
        train_options{state.context, job.id, state.coordinator, state.serve_coordinator});
    return;
  }
  // Nothing, or nobody who says what.
  if (const auto asked = state.context->store->list_jobs("", 1); !asked)
    look_again_if_silent(self, asked.error());
}

void job_left(self_pointer self, const caf::error& why) {
  auto& state = self->state;
  if (why && why != caf::exit_reason::user_shutdown && why != caf::exit_reason::normal) {
    log_error("job {}: its coordinator died: {}", state.running, from_caf(why).detail);
    (void)state.context->store->fail_job(state.running, from_caf(why));
    self->send(state.coordinator, return_devices{state.running});
  }
  state.job = nullptr;
  const auto left = std::exchange(state.running, {});
  for (auto& promise : std::exchange(state.parked, {})) promise.deliver(jobs_parked{left});
  take_up_next(self);
}

// --- after a restart ---------------------------------------------------------------------------

void bring_back(self_pointer self, const store::job_record& job) {
  auto& state = self->state;
  const auto folder = checkpoint_folder(*state.context, job.id);
  const auto newest = train::find_checkpoint(folder);
  if (!newest.path) {
    log_warning("{} cannot be served: no checkpoint under {}", job.fine_tuned_model,
                folder.string());
    return;
  }
  const auto facts = train::read_checkpoint_facts(*newest.path);
  if (!facts) {
    log_warning("{} cannot be served: {}", job.fine_tuned_model, facts.error().detail);
    return;
  }
  const auto publish = [&](std::vector<std::string> names, std::int64_t step, std::string path) {
    publish_version what;
    what.version = static_cast<std::uint64_t>(step);
    what.job = job.id;
    what.kind = facts->settings.method == train::training_method::full ? "full" : "lora";
    what.checkpoint = std::move(path);
    const auto name = names.front();
    what.names = std::move(names);
    self->request(state.serve_coordinator, load_deadline, std::move(what))
        .then([name](const version_published&) { log_info("{} is served again", name); },
              [name](const caf::error& why) {
                log_warning("{} cannot be served: {}", name, from_caf(why).detail);
              });
  };
  publish({job.fine_tuned_model, train::checkpoint_name(job.fine_tuned_model, facts->step)},
          facts->step, newest.path->string());
  if (facts->settings.method == train::training_method::full) return;
  const auto listed = state.context->store->list_checkpoints(job.id, "", page_size);
  if (!listed) return;
  for (const auto& checkpoint : listed->rows)
    if (checkpoint.step != facts->step)
      publish({checkpoint.model}, checkpoint.step,
              train::checkpoint_path(folder, checkpoint.step).string());
}

// Once, and later if the store is silent.
void bring_all_back(self_pointer self) {
  if (std::exchange(self->state.brought_back, true)) return;
  const auto& context = *self->state.context;
  std::string after;
  for (;;) {
    const auto page = context.store->list_jobs(after, page_size);
    if (!page && after.empty()) {
      self->state.brought_back = false;
      return look_again_if_silent(self, page.error());
    }
    if (!page || page->rows.empty()) return;
    for (const auto& job : page->rows)
      if (!job.fine_tuned_model.empty() && job.model == context.base_name) bring_back(self, job);
    if (!page->has_more) return;
    after = page->rows.back().id;
  }
}

}  // namespace

train_desk_actor::behavior_type train_desk(self_pointer self,
                                           std::shared_ptr<const train_context> context,
                                           coordinator_actor coordinator,
                                           serve_coordinator_actor serve_coordinator) {
  keep_exception_text(self);
  auto& state = self->state;
  state.context = std::move(context);
  state.coordinator = std::move(coordinator);
  state.serve_coordinator = std::move(serve_coordinator);
  self->set_down_handler([=](const caf::down_msg& down) {
    if (self->state.job && self->state.job.address() == down.source) job_left(self, down.reason);
  });
  self->set_exit_handler([=](const caf::exit_msg& end) {
    if (self->state.job) self->send_exit(self->state.job, end.reason);
    self->quit(end.reason);
  });
  bring_all_back(self);
  take_up_next(self);
  return {
      [=](const job_changed& fact) {
        if (self->state.job && fact.job == self->state.running)
          return self->send(self->state.job, fact);
        if (fact.job.empty()) self->state.looks_again = false;
        bring_all_back(self);
        take_up_next(self);
      },
      [=](park_jobs) -> caf::result<jobs_parked> {
        auto& now = self->state;
        now.parking = true;
        if (!now.job) return jobs_parked{};
        self->send(now.job, park{});
        auto promise = self->make_response_promise<jobs_parked>();
        now.parked.push_back(promise);
        return promise;
      },
      [=](const coordinator_changed& fact) {
        self->state.coordinator = fact.now;
        if (self->state.job) self->send(self->state.job, fact);
      },
  };
}

}  // namespace tandem::actors
