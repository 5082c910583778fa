// Who talks to whom: the whole protocol on one page. An order can be answered or refused (as an
// error, see to_caf / from_caf), a fact cannot. Every order to a device carries the epoch of the
// tenure it belongs to (lease::serve_since, lease::train_since); a device refuses any other.
#pragma once

#include "actors/courier.hpp"
#include "actors/inspect.hpp"
#include "actors/train_inspect.hpp"
#include "runtime/lease/policy.hpp"
#include "runtime/serve/training_gap.hpp"
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

// coordinator to GPU actor: this lease holds from now on. What a side that loses its tenure has in
// flight ends at the next boundary between two pieces: a step is given up and every sequence
// forgotten (KV memory stays as it is); an order of training is kept where it stands, and goes on
// when its job has the device again, unless it is dropped meanwhile. Answered with what the device
// is and which lease it held before.
struct take_lease {
  lease::lease now;
};
struct lease_taken {
  serve::device_facts facts;
  lease::lease before;
};
// serve coordinator to GPU actor: bring a model up in this device's memory.
struct load_model {
  lease::epoch at = 0;
  serve::load_order order;
};
// serve coordinator to GPU actor: one inference step. Answered when its last piece is done. One
// more may be sent ahead (step_plan::follows): it runs right after the first, unless that was given
// up or it was withdrawn; then it is answered with errc::cancelled.
struct run_step {
  lease::epoch at = 0;
  serve::step_plan plan;
  // On a shared device: training may hold up the step after this one so long (training_gap.hpp).
  std::int64_t training_gap_ns = serve::any_gap_ns;
};
// serve coordinator to GPU actor: the step that was sent ahead is not to begin any more; nothing
// where it has begun.
struct withdraw_step {
  lease::epoch at = 0;
  std::uint64_t number = 0;
};
// serve coordinator to GPU actor: give up the steps in flight and every sequence.
struct forget_sequences {
  lease::epoch at = 0;
};
// GPU actor to itself: go on with the step, or with training, now that the mailbox has been looked
// at.
struct next_piece {};
// GPU actor to itself: the step that was waited for has not come.
struct gap_over {
  std::uint64_t number = 0;
};

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

// train coordinator to GPU actor: make room for this job and read its parameters. An order that is
// kept for whoever had it open before is given up.
struct open_training {
  lease::epoch at = 0;
  train::open_order order;
};
struct training_opened {
  train::opened facts;
  courier_actor courier;  // of a group apart: moves what lies here; else none
};
// train coordinator to GPU actor: who else works on this job, in rank order; null: one whose memory
// this device does not share, itself included where nobody here knows it.
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
// train coordinator to GPU actor: give up the order of this job that is in flight or kept. Answered
// when nothing of it runs any more; the order itself is answered with errc::cancelled before.
struct drop_training {
  lease::epoch at = 0;  // residency: any lease of this device's life
  std::string job;
};
// train coordinator to GPU actor: the job leaves this device.
struct close_training {
  lease::epoch at = 0;
  std::string job;
};

using gpu_actor = caf::typed_actor<
    caf::replies_to<take_lease>::with<lease_taken>,
    caf::replies_to<load_model>::with<serve::loaded_model>,
    caf::replies_to<run_step>::with<serve::step_result>, caf::reacts_to<withdraw_step>,
    caf::replies_to<forget_sequences>::with<void>,
    caf::replies_to<add_version>::with<serve::device_facts>,
    caf::replies_to<remove_version>::with<serve::device_facts>,
    caf::replies_to<load_version>::with<serve::device_facts>,
    caf::replies_to<open_training>::with<training_opened>,
    caf::replies_to<join_training>::with<void>, caf::replies_to<run_training>::with<train::outcome>,
    caf::replies_to<drop_training>::with<void>, caf::replies_to<close_training>::with<void>,
    caf::reacts_to<next_piece>, caf::reacts_to<gap_over>>;

// --- the serve coordinator, one per served base model -------------------------------------------

// coordinator to who serves: this device serves for you, in the tenure of this lease. A lane that
// has its model on this very device goes on with it.
struct lease_granted {
  lease::lease now;
  serve::device_facts facts;
  gpu_actor device;
};
// coordinator to who serves: another role (serve, shared), the same tenure.
struct lease_changed {
  lease::lease now;
};
// coordinator to who serves: give this device back. Its requests go to other lanes, which go on
// from prompt and sent tokens; those that no other lane can take are finished first. Answered once
// nothing runs there (a step in flight counts for nothing any more); lease_granted or
// lease_changed before that take the order back (errc::cancelled).
struct release_device {
  lease::lease was;
};
struct device_released {
  int handed_over = 0;  // sequences
  int finished = 0;     // requests that were finished there meanwhile
};
// coordinator to who serves: the policy and its targets, from now on.
struct policy_changed {
  lease::policy_settings now;
};
// coordinator to who serves: this device is gone; nothing ordered from it will be answered.
struct lease_lost {
  lease::lease was;
};
// the keeper to whoever speaks to the coordinator: it died, this is the new one. Tell it what it
// must know (want_devices, device_up, want_training and job_resident) and what you hold.
struct coordinator_changed;
// gateway actor to serve coordinator: an accepted request. Its deltas go to the sender. Clocks of
// other machines are not ours: times travel as lengths, and the request's own count for nothing.
struct sent_choice {
  std::vector<serve::token_id> tokens;
  bool ended = false;
};
struct generate {
  serve::generation_request request;
  std::int64_t waited_ns = 0;  // since it came
  std::int64_t left_ns = 0;    // until its deadline; 0: none
  // What its client has of each choice, maybe nothing, from a serve coordinator that is gone: go on
  // after it. Empty: it is new.
  std::vector<sent_choice> sent;
  std::int64_t queued_ns = 0;  // as its client was told
  int cached_tokens = 0;
  std::uint64_t weights_version = 0;
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
    caf::reacts_to<lease_granted>, caf::reacts_to<lease_changed>, caf::reacts_to<policy_changed>,
    caf::replies_to<release_device>::with<device_released>, caf::reacts_to<lease_lost>,
    caf::reacts_to<coordinator_changed>, caf::reacts_to<generate>, caf::reacts_to<cancel_request>,
    caf::replies_to<publish_version>::with<version_published>, caf::reacts_to<withdraw_names>,
    caf::reacts_to<subscribe>, caf::reacts_to<tick>>;

// --- the coordinator: the book of leases
// ----------------------------------------------------------

struct job_changed;
struct park;
struct go_on;
struct training_granted;
struct training_revoked;
struct homes_changed;
struct look_at_work;
using train_coordinator_actor =
    caf::typed_actor<caf::reacts_to<job_changed>, caf::reacts_to<park>, caf::reacts_to<go_on>,
                     caf::reacts_to<training_granted>, caf::reacts_to<training_revoked>,
                     caf::reacts_to<homes_changed>, caf::reacts_to<coordinator_changed>,
                     caf::reacts_to<look_at_work>>;

// node actor to coordinator: a device is there (again).
struct device_up {
  std::string name;
  gpu_actor device;
};
// node actor to coordinator: the process of this device has ended, and how; its monitor may have
// said already that it is gone.
struct device_ended {
  std::string name;
  std::string how;
};
// roster to coordinator: these devices are about to leave. Answered once nobody holds one of them.
struct retire_devices {
  std::string node;
  std::vector<std::string> devices;
};
// serve coordinator to coordinator: lend me devices. Answered by lease_granted, one a device, now
// and whenever one becomes free.
struct want_devices {
  std::string holder;
  serve_coordinator_actor to;
};
// serve coordinator to coordinator: how serving goes; ten times a second while it works, once when
// it falls idle.
struct lane_load {
  std::string device;
  int running = 0;
  int queued = 0;
  std::int64_t busy_ns = 0;  // of this life of the lane, steps in flight included
  bool ready = false;        // it has its model
};
struct serve_load {
  std::vector<lane_load> lanes;
  lease::service_view service;
};

// train coordinator to coordinator: which devices may this job be opened on? Answered with those
// that are up. From then on until return_devices: training_granted and training_revoked go to `to`.
struct want_training {
  std::string job;
  int priority = 0;
  train_coordinator_actor to;
};
struct shared_device {
  lease::lease now;
  gpu_actor device;
  lease::epoch tenure = 0;  // of training by this job, as it has been told; 0: none
  bool gpu = false;
};
// train coordinator to coordinator: the job lies in the memory of these and can train on them at
// once. Until then no device trains it.
struct job_resident {
  std::string job;
  std::vector<std::string> devices;
  std::uint64_t bytes_each = 0;  // of device memory
};
// train coordinator to coordinator: after each round and step.
struct job_progress {
  std::string job;
  std::int64_t step = 0;
  std::int64_t step_count = 0;
  std::int64_t trained_tokens = 0;
  double loss = 0.0;
};
// coordinator to train coordinator: this device is yours to train on, in the tenure of this lease;
// or is not any more. The device has been told already.
struct training_granted {
  lease::lease now;
};
struct training_revoked {
  lease::lease now;
};
// coordinator to train coordinator: a device has come and has its model, or one that the job lies
// on is to leave. Ask again (want_training) between two steps.
struct homes_changed {};
// train coordinator to itself: somebody's work has stood for a while.
struct look_at_work {};
// train coordinator to coordinator: the job has left every device.
struct return_devices {
  std::string job;
};

// GPU actor to coordinator: the first piece of work of a side's new tenure begins.
struct work_began {
  lease::lease in;
};
// gateway actor to coordinator, by hand: this device into this role, or back to the policy.
// Answered with the lease as it is once the order is accepted; the move follows.
struct assign {
  std::string device;
  lease::role as = lease::role::idle;
  bool by_policy = false;  // back to the policy: `as` counts for nothing
};
// gateway actor to coordinator: from now on decide like this. Answered with what holds.
struct set_policy {
  lease::policy_settings to;
};
// anyone to coordinator: the book as it stands.
struct list_leases {};
// coordinator to itself: ask the policy.
struct look_around {};

using coordinator_actor = caf::typed_actor<
    caf::reacts_to<device_up>, caf::reacts_to<device_ended>,
    caf::replies_to<retire_devices>::with<void>, caf::reacts_to<want_devices>,
    caf::reacts_to<serve_load>, caf::replies_to<want_training>::with<std::vector<shared_device>>,
    caf::reacts_to<job_resident>, caf::reacts_to<job_progress>, caf::reacts_to<return_devices>,
    caf::reacts_to<work_began>, caf::replies_to<assign>::with<lease::lease>,
    caf::replies_to<set_policy>::with<lease::policy_settings>,
    caf::replies_to<list_leases>::with<std::vector<lease::lease>>, caf::reacts_to<look_around>>;

struct coordinator_changed {
  coordinator_actor now;
};

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
    caf::typed_actor<caf::reacts_to<job_changed>, caf::replies_to<park_jobs>::with<jobs_parked>,
                     caf::reacts_to<coordinator_changed>>;
// One per running job: deals work to devices, orders optimizer steps, checkpoints, publishes.
// (train_coordinator_actor stands before the coordinator, which speaks to it.)

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
  std::vector<std::shared_ptr<train::trainer_memory>> group;  // null: fetched by its courier
  // Of a group apart; null: gone, its shard is read from its copy.
  std::vector<courier_actor> couriers;
  std::vector<train::memory_range> shards;
  // By rank: who keeps a whole copy of its shard, for whoever does not answer; -1: nobody. Empty:
  // no copy counts.
  std::vector<int> copies_at;
  std::int64_t served_step = 0;  // its checkpoint stays, however old: devices read it again
};
struct checkpoint_saved {
  std::int64_t step = 0;
  std::string path;
  std::vector<int> from_copies;  // ranks whose shard was read from its copy
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
// the watch of a worker process to node actor: it has ended.
struct worker_ended {
  std::string name;
  std::uint64_t life = 0;
  std::string how;
};
using node_actor = caf::typed_actor<caf::reacts_to<start_device>, caf::reacts_to<worker_ended>,
                                    caf::reacts_to<coordinator_changed>>;

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

// http session to gateway actor: an order by hand to the coordinator; `answer` is called once.
struct submit_assign {
  assign order;
  std::function<void(result<lease::lease>)> answer;
};
struct submit_policy {
  lease::policy_settings to;
  std::function<void(result<lease::policy_settings>)> answer;
};
// whoever finds it to gateway actor: who serves from now on. It may be the one there was.
struct serve_coordinator_changed {
  serve_coordinator_actor now;
};
// gateway actor to itself: look at the requests that wait for a serve coordinator.
struct look_at_waiting {};

using gateway_actor =
    caf::typed_actor<caf::reacts_to<submit>, caf::reacts_to<withdraw>, caf::reacts_to<deltas>,
                     caf::reacts_to<serve_report>, caf::reacts_to<submit_assign>,
                     caf::reacts_to<submit_policy>, caf::reacts_to<coordinator_changed>,
                     caf::reacts_to<serve_coordinator_changed>, caf::reacts_to<look_at_waiting>>;

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
  return f(caf::meta::type_name("run_step"), x.at, x.plan, x.training_gap_ns);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, withdraw_step& x) {
  return f(caf::meta::type_name("withdraw_step"), x.at, x.number);
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
typename Inspector::result_type inspect(Inspector& f, gap_over& x) {
  return f(caf::meta::type_name("gap_over"), x.number);
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
typename Inspector::result_type inspect(Inspector& f, sent_choice& x) {
  return f(caf::meta::type_name("sent_choice"), x.tokens, x.ended);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, generate& x) {
  return f(caf::meta::type_name("generate"), x.request, x.waited_ns, x.left_ns, x.sent, x.queued_ns,
           x.cached_tokens, x.weights_version);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, serve_coordinator_changed& x) {
  return f(caf::meta::type_name("serve_coordinator_changed"), x.now);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, look_at_waiting&) {
  return f(caf::meta::type_name("look_at_waiting"));
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
typename Inspector::result_type inspect(Inspector& f, device_ended& x) {
  return f(caf::meta::type_name("device_ended"), x.name, x.how);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, retire_devices& x) {
  return f(caf::meta::type_name("retire_devices"), x.node, x.devices);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, worker_ended& x) {
  return f(caf::meta::type_name("worker_ended"), x.name, x.life, x.how);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, want_devices& x) {
  return f(caf::meta::type_name("want_devices"), x.holder, x.to);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, lease_changed& x) {
  return f(caf::meta::type_name("lease_changed"), x.now);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, release_device& x) {
  return f(caf::meta::type_name("release_device"), x.was);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, device_released& x) {
  return f(caf::meta::type_name("device_released"), x.handed_over, x.finished);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, coordinator_changed& x) {
  return f(caf::meta::type_name("coordinator_changed"), x.now);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, lane_load& x) {
  return f(caf::meta::type_name("lane_load"), x.device, x.running, x.queued, x.busy_ns, x.ready);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, serve_load& x) {
  return f(caf::meta::type_name("serve_load"), x.lanes, x.service);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, want_training& x) {
  return f(caf::meta::type_name("want_training"), x.job, x.priority, x.to);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, shared_device& x) {
  return f(caf::meta::type_name("shared_device"), x.now, x.device, x.tenure, x.gpu);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, job_resident& x) {
  return f(caf::meta::type_name("job_resident"), x.job, x.devices, x.bytes_each);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, job_progress& x) {
  return f(caf::meta::type_name("job_progress"), x.job, x.step, x.step_count, x.trained_tokens,
           x.loss);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, training_granted& x) {
  return f(caf::meta::type_name("training_granted"), x.now);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, training_revoked& x) {
  return f(caf::meta::type_name("training_revoked"), x.now);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, homes_changed&) {
  return f(caf::meta::type_name("homes_changed"));
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, look_at_work&) {
  return f(caf::meta::type_name("look_at_work"));
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, return_devices& x) {
  return f(caf::meta::type_name("return_devices"), x.job);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, work_began& x) {
  return f(caf::meta::type_name("work_began"), x.in);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, assign& x) {
  return f(caf::meta::type_name("assign"), x.device, x.as, x.by_policy);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, set_policy& x) {
  return f(caf::meta::type_name("set_policy"), x.to);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, policy_changed& x) {
  return f(caf::meta::type_name("policy_changed"), x.now);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, look_around&) {
  return f(caf::meta::type_name("look_around"));
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, lease_taken& x) {
  return f(caf::meta::type_name("lease_taken"), x.facts, x.before);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, open_training& x) {
  return f(caf::meta::type_name("open_training"), x.at, x.order);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, training_opened& x) {
  return f(caf::meta::type_name("training_opened"), x.facts, x.courier);
}
// Memory stays where it is: elsewhere a member is null.
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, join_training& x) {
  auto members = x.group.size();
  auto load = [&]() -> caf::error {
    if (members > train::group_max) return caf::sec::invalid_argument;
    x.group.assign(members, nullptr);
    return caf::none;
  };
  return f(caf::meta::type_name("join_training"), x.at, x.job, members,
           caf::meta::load_callback(load));
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, run_training& x) {
  return f(caf::meta::type_name("run_training"), x.at, x.what);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, drop_training& x) {
  return f(caf::meta::type_name("drop_training"), x.at, x.job);
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
  return f(caf::meta::type_name("checkpoint_saved"), x.step, x.path, x.from_copies);
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
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::actors::submit_assign)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::actors::submit_policy)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::actors::add_version)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::actors::publish_version)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::actors::prepared_job)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::actors::save_checkpoint)
