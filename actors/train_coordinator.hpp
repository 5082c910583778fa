// The train coordinator: one per running job. The job lies in the memory of a group of devices for
// as long as it runs; which of them work on it at the moment is the coordinator's decision
// (training_granted, training_revoked), and the work book deals each phase's work to those. It
// writes checkpoints beside running steps and publishes versions. Its job's
// record in the store is the truth: it is read when it changes, and written only where it still
// says what we believe.
//
// A step is a transaction: its rounds are accumulated on every device, its update is ordered when
// all are in and the checkpoint of the step before is on disk. Whatever dies in between is done
// again, with the same bits, whoever does it: from what the step before left where that can be had
// (train_copies.cpp), else from the newest checkpoint.
#pragma once

#include "actors/train_clerk.hpp"
#include "runtime/train/step_math.hpp"
#include "runtime/train/work_book.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace tandem::actors {

struct train_options {
  std::shared_ptr<const train_context> context;
  std::string job;
  coordinator_actor coordinator;
  serve_coordinator_actor serve_coordinator;
  // An order without an answer for so long is taken back and done anew: a hang, or a device that
  // was away all the while.
  std::chrono::milliseconds order_deadline{std::chrono::minutes(60)};
  std::chrono::milliseconds retry_pause{500};
  int attempts_max = 20;  // to open the job, without a step done in between
};

struct train_state {
  enum class wish { go_on, park, leave };
  struct member {
    lease::lease now;  // when the job was let in: orders of residency carry its epoch
    gpu_actor device;
    lease::epoch tenure = 0;  // of training; 0: it does not work for us
    courier_actor courier;    // of a group apart
    bool gpu = false;
  };
  // Where the order of a rank is, in a group apart.
  enum class place { none, brings, runs, goes_home };
  // The phase under way: what its orders are and what came of them, by home.
  struct phase {
    std::function<train::order(int home)> make;
    std::vector<train::outcome> outcomes;
    error refusal;  // of a publication that found no place; no detail: none
    std::function<void(std::vector<train::outcome>)> then;
  };

  train_options options;
  train_clerk_actor clerk;
  std::shared_ptr<std::atomic<bool>> given_up;
  store::job_record record;
  prepared_job plan;
  std::string version_name;

  // Grows whenever what is under way is given up: answers of an older one are ignored.
  std::uint64_t incarnation = 0;
  std::vector<member> members;                                // in rank order
  std::vector<std::shared_ptr<train::trainer_memory>> group;  // null: in another process
  train::group_layout layout;
  bool apart = false;               // members do not all share memory
  std::vector<place> places;        // by rank
  std::vector<bool> to_be_dropped;  // once its ranges have come, or are home
  // Parameters and moments are those of `step` in all homes: from an update's end to the next one.
  bool whole = false;
  std::vector<int> buddies;                         // by rank: who keeps a copy of its shard, or -1
  std::vector<std::int64_t> copied_step;            // by rank: of which step that is whole, or -1
  int copying = 0;                                  // copies on their way
  std::vector<std::function<void()>> after_copied;  // what waits for them
  std::set<int> gone;                               // ranks that have died
  // Why what is left of `step` is being saved; meanwhile nothing else starts the job over.
  std::optional<error> rescued_from;
  std::vector<int> from_copies;  // of the newest checkpoint: ranks whose shard was read from there
  bool owes_step = false;        // what is due after `step` was cut short
  std::set<std::string> left_out;  // devices that could not open the job
  bool has_others = false;         // devices that are up and not taken, but could be
  // Two that were up when one's courier did not get through to the other.
  struct suspicion {
    std::string one_name;
    gpu_actor one;
    std::string other_name;
    gpu_actor other;
  };
  std::vector<suspicion> suspected;
  struct torn_off {
    gpu_actor device;
    gpu_actor missed_by;
  };
  std::map<std::string, torn_off> out_of_reach;  // up, and left out until others reach them
  bool probing = false;                          // whether they do
  bool homes_changed = false;    // others are up, or some are to leave: to be looked at
  std::uint64_t bytes_each = 0;  // of device memory
  std::optional<train::work_book> work;
  bool looks_again = false;  // look_at_work is on its way
  phase under_way;
  bool leaving = false;  // between two pieces: nothing more is dealt
  int attempts = 0;
  bool lacks_devices = false;  // none was up when it looked last
  wish wanted = wish::go_on;

  std::int64_t step = 0;         // done
  std::int64_t saved_step = 0;   // on disk
  std::int64_t served_step = 0;  // of the newest version that was read from its checkpoint; 0: none
  train::step_rows rows;         // of the step under way
  train::step_loss loss;
  train::step_loss validation;  // of the newest validation; counted 0: none
  double norm = 0.0;
  double learning_rate = 0.0;
  std::int64_t trained_tokens = 0;
  std::int64_t tokens_at_step = 0;  // as of `step`
  std::int64_t told_step = 0;       // whose metrics are told; 0: none since the newest began
  caf::actor_clock::time_point step_began{};
  train::step_clock clock;
  bool saving = false;                             // the clerk writes a checkpoint
  std::vector<std::function<void()>> after_saved;  // what waits for it, in order
  std::function<void()> after_pause;               // what go_on does; empty: begin with preparing
  text::value metrics;                             // of the step done, for people
  std::vector<std::string> checkpoint_names;       // callable, oldest first

  static inline const char* name = "train_coordinator";
};

train_coordinator_actor::behavior_type train_coordinator(
    train_coordinator_actor::stateful_pointer<train_state> self, train_options options);

}  // namespace tandem::actors
