// The train coordinator: one per running job. It borrows devices, deals each step's rounds to them,
// orders the optimizer, writes checkpoints beside running steps and publishes versions. Its job's
// record in the store is the truth: it is read when it changes, and written only where it still
// says what we believe.
//
// A step is a transaction: its rounds are accumulated on every device, its update is ordered when
// all are in and the checkpoint of the step before is on disk. Whatever dies in between is done
// again from the newest checkpoint, with the same bits.
#pragma once

#include "actors/train_clerk.hpp"
#include "runtime/train/step_math.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace tandem::actors {

struct train_options {
  std::shared_ptr<const train_context> context;
  std::string job;
  coordinator_actor coordinator;
  serve_coordinator_actor serve_coordinator;
  std::chrono::milliseconds order_deadline{std::chrono::minutes(60)};  // a longer one is a hang
  std::chrono::milliseconds retry_pause{500};
  int attempts_max = 20;  // to open the job, without a step done in between
};

struct train_state {
  enum class wish { go_on, park, leave };
  struct member {
    lease::lease now;
    gpu_actor device;
  };

  train_options options;
  train_clerk_actor clerk;
  std::shared_ptr<std::atomic<bool>> given_up;
  store::job_record record;
  prepared_job plan;
  std::string version_name;

  // Grows whenever what is under way is given up: answers of an older one are ignored.
  std::uint64_t incarnation = 0;
  std::vector<member> members;  // in rank order
  std::vector<std::shared_ptr<train::trainer_memory>> group;
  int attempts = 0;
  wish wanted = wish::go_on;

  std::int64_t step = 0;        // done
  std::int64_t saved_step = 0;  // on disk
  train::step_rows rows;        // of the step under way
  train::step_loss loss;
  train::step_loss validation;  // of the newest validation; counted 0: none
  double norm = 0.0;
  double learning_rate = 0.0;
  std::int64_t trained_tokens = 0;
  caf::actor_clock::time_point step_began{};
  train::step_clock clock;
  bool saving = false;                        // the clerk writes a checkpoint
  std::function<void()> after_saved;          // what waits for it
  std::function<void()> after_pause;          // what go_on does; empty: begin with preparing
  text::value metrics;                        // of the step done, for people
  std::vector<std::string> checkpoint_names;  // callable, oldest first

  static inline const char* name = "train_coordinator";
};

train_coordinator_actor::behavior_type train_coordinator(
    train_coordinator_actor::stateful_pointer<train_state> self, train_options options);

}  // namespace tandem::actors
