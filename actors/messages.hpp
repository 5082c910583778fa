// Who talks to whom: the whole protocol on one page. An order can be answered or refused (as an
// error, see to_caf / from_caf), a fact cannot. Every order to a device carries the lease's epoch;
// a device refuses any that is older than the newest it has seen.
#pragma once

#include "actors/inspect.hpp"
#include "runtime/train/checkpoint.hpp"
#include "runtime/train/order.hpp"
#include "runtime/train/step_planner.hpp"

#include <caf/all.hpp>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace tandem::actors {

// Errors cross actors as caf::error with our code, detail and parameter inside.
caf::error to_caf(const error& why);
error from_caf(const caf::error& why);
// One of ours: somebody answered "no". Others say that nobody answered.
bool is_refusal(const caf::error& why);

// --- orders to a GPU actor, the one owner of a device ------------------------------------------

// coordinator to GPU actor: this lease holds from now on. Answered with what the device is.
struct take_lease {
  lease::lease now;
};
// serve coordinator to GPU actor: bring a model up in this device's memory.
struct load_model {
  lease::epoch at = 0;
  serve::load_order order;
};
// serve coordinator to GPU actor: one inference step. Answered when its last piece is done.
struct run_step {
  lease::epoch at = 0;
  serve::step_plan plan;
};
// serve coordinator to GPU actor: give up the step in flight and every sequence.
struct forget_sequences {
  lease::epoch at = 0;
};
// GPU actor to itself: go on with the step, or with training, now that the mailbox has been looked
// at.
struct next_piece {};

// serve coordinator to GPU actor: sequences may start on this version from the next step on.
struct add_version {
  lease::epoch at = 0;
  serve::variant_id id = 0;
  serve::variant what;
};
// serve coordinator to GPU actor: nobody runs on it any more.
struct remove_version {
  lease::epoch at = 0;
  serve::variant_id id = 0;
};
// serve coordinator to GPU actor: a version out of a checkpoint's folder, and add it.
struct load_version {
  lease::epoch at = 0;
  serve::variant_id id = 0;
  std::string checkpoint;
  std::uint64_t version = 0;
};

// train coordinator to GPU actor: make room for this job and read its parameters.
struct open_training {
  lease::epoch at = 0;
  train::open_order order;
};
// train coordinator to GPU actor: who else works on this job, in rank order.
struct join_training {
  lease::epoch at = 0;
  std::string job;
  std::vector<std::shared_ptr<train::trainer_memory>> group;
};
// train coordinator to GPU actor: one order of a job. Runs in pieces, a serving step first at every
// boundary. Answered when its last piece is done.
struct run_training {
  lease::epoch at = 0;
  train::order what;
};
// train coordinator to GPU actor: the job leaves this device.
struct close_training {
  lease::epoch at = 0;
  std::string job;
};

using gpu_actor =
    caf::typed_actor<caf::replies_to<take_lease>::with<serve::device_facts>,
                     caf::replies_to<load_model>::with<serve::loaded_model>,
                     caf::replies_to<run_step>::with<serve::step_result>,
                     caf::replies_to<forget_sequences>::with<caf::unit_t>,
                     caf::replies_to<add_version>::with<serve::device_facts>,
                     caf::replies_to<remove_version>::with<serve::device_facts>,
                     caf::replies_to<load_version>::with<serve::device_facts>,
                     caf::replies_to<open_training>::with<train::opened>,
                     caf::replies_to<join_training>::with<void>,
                     caf::replies_to<run_training>::with<train::outcome>,
                     caf::replies_to<close_training>::with<void>, caf::reacts_to<next_piece>>;

// --- the serve coordinator, one per served base model -------------------------------------------

// coordinator to holder: this device is yours, at this epoch.
struct lease_granted {
  lease::lease now;
  serve::device_facts facts;
  gpu_actor device;
};
// coordinator to holder: this device is gone; nothing ordered from it will be answered.
struct lease_lost {
  lease::lease was;
};
// gateway actor to serve coordinator: an accepted request. Its deltas go to the sender.
struct generate {
  serve::generation_request request;
};
// gateway actor to serve coordinator: nobody waits for this request any more.
struct cancel_request {
  serve::request_id id = 0;
};
// serve coordinator to itself: look at deadlines, and report.
struct tick {};

// train coordinator to serve coordinator: a version is ready under these names ("ft:…", and
// "ft:…:ckpt-step-N"); a name that was another version's moves to this one for requests that come
// later. Answered once every lane that can have it has it.
struct device_version {
  std::string device;
  serve::variant what;
};
struct publish_version {
  std::vector<std::string> names;
  std::uint64_t version = 0;
  std::string job;
  std::string kind;  // "lora" | "full"
  // One of the three: an adapter for every lane; weights by device; or a checkpoint's folder to
  // read it from (after a restart).
  std::shared_ptr<const model::adapter> adapter;
  std::vector<device_version> by_device;
  std::string checkpoint;
};
struct version_published {
  serve::variant_id id = 0;
  std::vector<std::string> devices;
};
// train coordinator to serve coordinator: these names are gone. Streams on them go on.
struct withdraw_names {
  std::vector<std::string> names;
};

// A name that requests may give besides the base model's.
struct served_version {
  std::string name;
  std::uint64_t version = 0;
  std::string job;
  std::string kind;
  std::int64_t published_at = 0;  // Unix seconds
  std::vector<std::string> devices;
  bool operator==(const served_version&) const = default;
};

// serve coordinator to its subscribers: what came out of a step.
struct deltas {
  std::vector<serve::generation_delta> list;
};

// One device as its serve coordinator sees it.
struct lane_report {
  lease::lease held;
  serve::device_facts facts;
  serve::loaded_model model;
  serve::scheduler_counts counts;
  bool ready = false;
  std::uint64_t steps = 0;
  std::uint64_t rows = 0;            // tokens computed, prompt and generated
  std::int64_t busy_ns = 0;          // time the device worked on steps
  std::int64_t step_running_ns = 0;  // of the step in flight; 0: none
};
// serve coordinator to gateway actor: how serving goes. After each change of readiness, when it
// falls idle, and ten times a second while it works.
struct serve_report {
  std::string model;
  std::vector<lane_report> lanes;
  std::uint64_t devices_lost = 0;
  std::vector<error> failures;  // why a device could not load the model; newest last
  std::vector<served_version> versions;
};

// gateway actor to serve coordinator: send me reports from now on.
struct subscribe {};

using serve_coordinator_actor = caf::typed_actor<
    caf::reacts_to<lease_granted>, caf::reacts_to<lease_lost>, caf::reacts_to<generate>,
    caf::reacts_to<cancel_request>, caf::replies_to<publish_version>::with<version_published>,
    caf::reacts_to<withdraw_names>, caf::reacts_to<subscribe>, caf::reacts_to<tick>>;

// --- the coordinator: the book of leases
// ----------------------------------------------------------

// node actor to coordinator: a device is there (again).
struct device_up {
  std::string name;
  gpu_actor device;
};
// serve coordinator to coordinator: lend me devices. Answered by lease_granted, one a device, now
// and whenever one becomes free.
struct want_devices {
  std::string holder;
  serve_coordinator_actor to;
};
// train coordinator to coordinator: which devices may this job train on, beside what they serve?
// Answered with those that are up; they are shared with it until return_devices.
struct share_devices {
  std::string guest;
};
struct shared_device {
  lease::lease now;
  gpu_actor device;
};
// train coordinator to coordinator: the job has left every device.
struct return_devices {
  std::string guest;
};
// anyone to coordinator: the book as it stands.
struct list_leases {};

using coordinator_actor =
    caf::typed_actor<caf::reacts_to<device_up>, caf::reacts_to<want_devices>,
                     caf::replies_to<share_devices>::with<std::vector<shared_device>>,
                     caf::reacts_to<return_devices>,
                     caf::replies_to<list_leases>::with<std::vector<lease::lease>>>;

// --- training jobs
// ---------------------------------------------------------------------------------

// the store (through the platform) to the desk, the desk to a job's train coordinator: the job's
// record has changed, read it.
struct job_changed {
  std::string job;
};
// platform to desk: the process is about to end. Answered when the running job has written a
// checkpoint and left its devices; its record stays as it is, and the next start takes it up again.
struct park_jobs {};
struct jobs_parked {
  std::string job;  // empty: none ran
};
// desk to train coordinator: likewise.
struct park {};
// train coordinator to itself: try again what had to wait.
struct go_on {
  std::uint64_t incarnation = 0;
};

// The desk: takes up what the store says is to be done, one job at a time, and brings published
// models back after a restart.
using train_desk_actor =
    caf::typed_actor<caf::reacts_to<job_changed>, caf::replies_to<park_jobs>::with<jobs_parked>>;
// One per running job: deals rounds to devices, orders optimizer steps, checkpoints, publishes.
using train_coordinator_actor =
    caf::typed_actor<caf::reacts_to<job_changed>, caf::reacts_to<park>, caf::reacts_to<go_on>>;

// train coordinator to its clerk: read and check the job's data, settle its settings.
struct prepare_job {
  std::string job;
};
struct prepared_job {
  train::job_settings settings;
  std::shared_ptr<const train::step_planner> training;
  std::shared_ptr<const train::step_planner> validation;  // null: none
  std::string checkpoint;                                 // to go on from; empty: from the base
  std::int64_t trained_tokens = 0;                        // up to there
  std::vector<std::string> checkpoint_names;              // of those on disk
  std::vector<std::string> notes;                         // what a person should know of the data
};
// train coordinator to its clerk: write the parameters of this step, beside what runs on.
struct save_checkpoint {
  train::checkpoint_facts facts;
  std::vector<std::shared_ptr<train::trainer_memory>> group;
};
struct checkpoint_saved {
  std::int64_t step = 0;
  std::string path;
};
// train coordinator to its clerk: the job is through; write its result file and weights' hash.
struct write_results {
  std::string job;
  std::string checkpoint;
};
struct results_written {
  std::string file;
  std::string parameters_sha256;
};
// The clerk: whatever of a job would block a mailbox (files, tokenizing) runs on its thread.
using train_clerk_actor = caf::typed_actor<caf::replies_to<prepare_job>::with<prepared_job>,
                                           caf::replies_to<save_checkpoint>::with<checkpoint_saved>,
                                           caf::replies_to<write_results>::with<results_written>>;

// --- the node actor: starts, watches and restarts this machine's GPU actors
// ------------------------

// node actor to itself: start this device (again).
struct start_device {
  std::string name;
};
using node_actor = caf::typed_actor<caf::reacts_to<start_device>>;

// --- the gateway actor: the doors' one voice inside
// -------------------------------------------------

// Where the deltas of a request go. Lives in the gateway's process and never travels.
using delta_handler = std::function<void(serve::generation_delta)>;

// http session to gateway actor: run this; every delta goes to `to`.
struct submit {
  serve::generation_request request;
  delta_handler to;
};
// http session to gateway actor: the client is gone.
struct withdraw {
  serve::request_id id = 0;
};

using gateway_actor = caf::typed_actor<caf::reacts_to<submit>, caf::reacts_to<withdraw>,
                                       caf::reacts_to<deltas>, caf::reacts_to<serve_report>>;

// --- inspection
// ------------------------------------------------------------------------------------

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, take_lease& x) {
  return f(caf::meta::type_name("take_lease"), x.now);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, load_model& x) {
  return f(caf::meta::type_name("load_model"), x.at, x.order);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, run_step& x) {
  return f(caf::meta::type_name("run_step"), x.at, x.plan);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, forget_sequences& x) {
  return f(caf::meta::type_name("forget_sequences"), x.at);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, next_piece&) {
  return f(caf::meta::type_name("next_piece"));
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, lease_granted& x) {
  return f(caf::meta::type_name("lease_granted"), x.now, x.facts, x.device);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, lease_lost& x) {
  return f(caf::meta::type_name("lease_lost"), x.was);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, generate& x) {
  return f(caf::meta::type_name("generate"), x.request);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, cancel_request& x) {
  return f(caf::meta::type_name("cancel_request"), x.id);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, tick&) {
  return f(caf::meta::type_name("tick"));
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, deltas& x) {
  return f(caf::meta::type_name("deltas"), x.list);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, lane_report& x) {
  return f(caf::meta::type_name("lane_report"), x.held, x.facts, x.model, x.counts, x.ready,
           x.steps, x.rows, x.busy_ns, x.step_running_ns);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, serve_report& x) {
  return f(caf::meta::type_name("serve_report"), x.model, x.lanes, x.devices_lost, x.failures,
           x.versions);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, subscribe&) {
  return f(caf::meta::type_name("subscribe"));
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, device_up& x) {
  return f(caf::meta::type_name("device_up"), x.name, x.device);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, want_devices& x) {
  return f(caf::meta::type_name("want_devices"), x.holder, x.to);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, share_devices& x) {
  return f(caf::meta::type_name("share_devices"), x.guest);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, shared_device& x) {
  return f(caf::meta::type_name("shared_device"), x.now, x.device);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, return_devices& x) {
  return f(caf::meta::type_name("return_devices"), x.guest);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, job_changed& x) {
  return f(caf::meta::type_name("job_changed"), x.job);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, go_on& x) {
  return f(caf::meta::type_name("go_on"), x.incarnation);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, prepare_job& x) {
  return f(caf::meta::type_name("prepare_job"), x.job);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, checkpoint_saved& x) {
  return f(caf::meta::type_name("checkpoint_saved"), x.step, x.path);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, write_results& x) {
  return f(caf::meta::type_name("write_results"), x.job, x.checkpoint);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, results_written& x) {
  return f(caf::meta::type_name("results_written"), x.file, x.parameters_sha256);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, jobs_parked& x) {
  return f(caf::meta::type_name("jobs_parked"), x.job);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, park_jobs&) {
  return f(caf::meta::type_name("park_jobs"));
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, park&) {
  return f(caf::meta::type_name("park"));
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, list_leases&) {
  return f(caf::meta::type_name("list_leases"));
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, start_device& x) {
  return f(caf::meta::type_name("start_device"), x.name);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, remove_version& x) {
  return f(caf::meta::type_name("remove_version"), x.at, x.id);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, load_version& x) {
  return f(caf::meta::type_name("load_version"), x.at, x.id, x.checkpoint, x.version);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, close_training& x) {
  return f(caf::meta::type_name("close_training"), x.at, x.job);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, version_published& x) {
  return f(caf::meta::type_name("version_published"), x.id, x.devices);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, withdraw_names& x) {
  return f(caf::meta::type_name("withdraw_names"), x.names);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, served_version& x) {
  return f(caf::meta::type_name("served_version"), x.name, x.version, x.job, x.kind, x.published_at,
           x.devices);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, withdraw& x) {
  return f(caf::meta::type_name("withdraw"), x.id);
}

}  // namespace tandem::actors

// These carry shared memory and never leave the process.
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::actors::submit)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::actors::add_version)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::actors::open_training)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::actors::join_training)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::actors::run_training)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::actors::publish_version)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::actors::prepared_job)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::actors::save_checkpoint)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::train::opened)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::train::outcome)
