// What a device is asked for that takes long and is no step: a model is loaded, a version is read,
// a job is opened. Files come first, where they are of another machine; reading goes in pieces
// between steps.
#include "actors/fault.hpp"
#include "actors/gpu_files.hpp"
#include "actors/gpu_parts.hpp"

#include <chrono>
#include <optional>
#include <utility>

namespace tandem::actors::gpu_work {
namespace {

// A device whose machine has no room for the model ends then and is started again, for as long as
// it takes.
constexpr auto model_patience = std::chrono::seconds(90);
constexpr auto checkpoint_patience = std::chrono::seconds(2);  // others can do without it

// Errands that are about this are answered with `why`, and undone.
template <class Which>
void give_up_errands(self_pointer self, const error& why, const Which& which) {
  auto& errands = self->state.errands;
  std::deque<gpu_state::errand> over;
  for (auto at = errands.begin(); at != errands.end();) {
    if (!which(*at)) {
      ++at;
      continue;
    }
    over.push_back(std::move(*at));
    at = errands.erase(at);
  }
  for (auto& one : over) {
    one.call.reset();
    one.refuse(why);
  }
}

template <class T>
void deliver(caf::typed_response_promise<T>& answer, result<T> made) {
  if (made)
    answer.deliver(*std::move(made));
  else
    answer.deliver(to_caf(made.error()));
}

// `work` is done in pieces, and `then` makes the answer of what it returned.
template <class Made, class T>
void run_in_pieces(self_pointer self, gpu_state::errand errand,
                   std::function<result<Made>(const pause_point&)> work,
                   std::function<result<T>(Made)> then, caf::typed_response_promise<T> answer) {
  auto made = std::make_shared<std::optional<result<Made>>>();
  errand.call = std::make_unique<paused_call>(
      [made, work = std::move(work)](const pause_point& pause) { made->emplace(work(pause)); });
  errand.done = [answer, made, then = std::move(then)]() mutable {
    auto& came = **made;
    if (came)
      deliver(answer, then(*std::move(came)));
    else
      answer.deliver(to_caf(came.error()));
  };
  errand.refuse = [answer](const error& why) mutable { answer.deliver(to_caf(why)); };
  self->state.errands.push_back(std::move(errand));
  run_pieces(self);
}

void load(self_pointer self, const load_model& order, model_answer answer) {
  auto& state = self->state;
  if (auto fresh = state.guard.admit_serving(order.at); !fresh)
    return deliver(answer, result<serve::loaded_model>(fresh.error()));
  give_up_step(self, {errc::conflict, "another model is loaded", ""});
  give_up_errands(self, {errc::unavailable, "another model is loaded", ""},
                  [](const auto&) { return true; });
  deliver(answer, state.device->load(order.order));
}

// False: it was taken back meanwhile.
bool version_came(gpu_state& state, serve::variant_id id) {
  const auto found = state.versions_to_come.find(id);
  if (found == state.versions_to_come.end()) return false;
  state.versions_to_come.erase(found);
  return true;
}

void load(self_pointer self, const load_version& order, version_answer answer, file_hold hold) {
  auto& state = self->state;
  const auto refuse = [&](const error& why) { answer.deliver(to_caf(why)); };
  const bool wanted = version_came(state, order.id);
  if (auto fresh = state.guard.admit_residency(order.at); !fresh) return refuse(fresh.error());
  if (!wanted)
    return refuse({errc::cancelled, "the version was taken back while its files came", ""});
  auto& device = *state.device;
  gpu_state::errand errand;
  errand.version = order.id;
  run_in_pieces<serve::variant, serve::device_facts>(
      self, std::move(errand),
      [&device, order, hold = std::move(hold)](const pause_point& pause) {
        return device.load_variant(order.checkpoint, order.version, pause);
      },
      [&device, id = order.id](const serve::variant& loaded) {
        return device.add_variant(id, loaded);
      },
      std::move(answer));
}

bool opens_a_job(const gpu_state::errand& one) { return !one.job.empty(); }

void open(self_pointer self, const open_training& order, std::uint64_t opening,
          opened_answer answer, file_hold hold) {
  auto& state = self->state;
  const auto refuse = [&](const error& why) { answer.deliver(to_caf(why)); };
  if (auto fresh = state.guard.admit_residency(order.at); !fresh) return refuse(fresh.error());
  if (opening != state.openings)
    return refuse({errc::cancelled, "the job left the device while its files came", ""});
  state.job_to_come.clear();
  // Of a job that could not close here: it left while this device was out of reach.
  const error anew{errc::cancelled, "a job is opened anew", ""};
  give_up_training(self, state.training_job, anew);
  give_up_errands(self, anew, opens_a_job);
  dismiss_courier(self);
  auto& device = *state.device;
  gpu_state::errand errand;
  errand.job = order.order.job;
  run_in_pieces<train::opened, training_opened>(
      self, std::move(errand),
      [&device, what = order.order, hold = std::move(hold)](const pause_point& pause) {
        return device.open_training(what, pause);
      },
      [self, job = order.order.job,
       apart = order.order.apart](train::opened opened) -> result<training_opened> {
        auto& now = self->state;
        if (apart) {
          now.courier = self->spawn(courier, opened.shared, caf::strong_actor_ptr(self->ctrl()));
          now.courier_job = job;
        }
        return training_opened{std::move(opened), now.courier};
      },
      std::move(answer));
}

}  // namespace

void run_errand(self_pointer self) {
  auto& errands = self->state.errands;
  if (errands.front().call->advance()) return;
  const auto over = std::move(errands.front());
  errands.pop_front();
  over.done();
}

caf::result<serve::loaded_model> get_and_load(self_pointer self, load_model& order) {
  order_with_files<serve::loaded_model, load_model> what{
      std::move(order),
      {{[](load_model& o) -> std::string& { return o.order.path; }, shelf::purpose::model}},
      model_patience,
      [=](const load_model& o, model_answer answer, const file_hold&) {
        load(self, o, std::move(answer));
      },
      {}};
  what.given_up = [=](const error& why) {
    if (is_worth_another_try(why)) self->quit(to_caf(why));
  };
  return with_files(self, std::move(what));
}

caf::result<serve::device_facts> get_and_load(self_pointer self, const load_version& order) {
  self->state.versions_to_come.insert(order.id);
  return with_files<serve::device_facts, load_version>(
      self,
      {order,
       {{[](load_version& o) -> std::string& { return o.checkpoint; }, shelf::purpose::version}},
       checkpoint_patience,
       [=](const load_version& o, version_answer answer, file_hold hold) {
         load(self, o, std::move(answer), std::move(hold));
       },
       [=, id = order.id](const error&) { (void)version_came(self->state, id); }});
}

caf::result<training_opened> get_and_open(self_pointer self, open_training& order) {
  auto& state = self->state;
  state.job_to_come = order.order.job;
  const auto opening = ++state.openings;
  std::vector<named_files<open_training>> files;
  // LoRA trains over the weights that are here already.
  if (order.order.settings.method == train::training_method::full)
    files.push_back({[](open_training& o) -> std::string& { return o.order.model_path; },
                     shelf::purpose::model});
  if (!order.order.checkpoint.empty())
    files.push_back({[](open_training& o) -> std::string& { return o.order.checkpoint; },
                     shelf::purpose::training});
  return with_files<training_opened, open_training>(
      self, {std::move(order),
             std::move(files),
             checkpoint_patience,
             [=](const open_training& o, opened_answer answer, file_hold hold) {
               open(self, o, opening, std::move(answer), std::move(hold));
             },
             {}});
}

void remove(self_pointer self, serve::variant_id id) {
  auto& state = self->state;
  state.versions_to_come.erase(id);
  give_up_errands(self, {errc::cancelled, "the version was withdrawn", ""},
                  [&](const auto& one) { return one.version == id; });
  state.device->remove_variant(id);
}

void close(self_pointer self, const std::string& job) {
  auto& state = self->state;
  if (job == state.job_to_come) ++state.openings;
  const error left{errc::cancelled, "the job left the device", ""};
  give_up_training(self, job, left);
  give_up_errands(self, left, [&](const auto& one) { return opens_a_job(one) && one.job == job; });
  if (job == state.courier_job) dismiss_courier(self);
  state.device->close_training(job);
}

}  // namespace tandem::actors::gpu_work
