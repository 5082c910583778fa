// The clerk of one job: everything of it that would block a mailbox. It has a thread of its own,
// reads the job's data, writes checkpoints beside running steps and the results at the end.
#pragma once

#include "actors/messages.hpp"
#include "runtime/model/model_config.hpp"
#include "runtime/store/store.hpp"
#include "runtime/train/checkpoint_writer.hpp"
#include "runtime/train/dataset.hpp"

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <string>

namespace tandem::actors {

// What every job of this process shares.
struct train_context {
  std::shared_ptr<store::store> store;
  std::string base_name;       // what clients call the served model
  std::string model_path;      // where its files lie
  model::model_config config;  // its context_length bounds examples
  train::reader reader;
  int default_slots = 4;
  std::filesystem::path directory;  // a folder a job below it
  bool own_threads = true;          // false in tests: clerks run where everything runs
  // Devices of one process are kept apart as if they shared no memory: of groups that hold a model
  // together none has a job's numbers whole. For tests, too.
  bool devices_apart = false;
  // A simulation's clerk, without files; empty: the real one.
  std::function<train_clerk_actor(caf::actor_system& system,
                                  std::shared_ptr<const std::atomic<bool>> given_up)>
      make_clerk;
};

std::filesystem::path checkpoint_folder(const train_context& context, const std::string& job);

struct train_clerk_state {
  std::shared_ptr<const train_context> context;
  std::shared_ptr<const std::atomic<bool>> given_up;
  // The checkpoint of a group apart that is being written, and how many were begun.
  std::unique_ptr<train::checkpoint_writer> writer;
  std::uint64_t saves = 0;
  std::set<int> silent;  // ranks whose shard is read from its copy

  static inline const char* name = "train_clerk";
};

// `given_up` is set by the coordinator when nobody wants the answer any more.
train_clerk_actor::behavior_type train_clerk(
    train_clerk_actor::stateful_pointer<train_clerk_state> self,
    std::shared_ptr<const train_context> context,
    std::shared_ptr<const std::atomic<bool>> given_up);

}  // namespace tandem::actors
