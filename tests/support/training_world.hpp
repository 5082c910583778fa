// Jobs on fake devices in one thread of virtual time, with a real store and real checkpoints.
#pragma once

#include "actors/train_desk.hpp"
#include "runtime/text/value.hpp"
#include "tests/support/actor_world.hpp"
#include "tests/support/byte_model.hpp"
#include "tests/support/temporary_folder.hpp"

#include <catch2/catch.hpp>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::test {

using namespace std::chrono_literals;
using store::job_status;

// What outlives a process.
struct disk {
  temporary_folder folder;
  std::string training_file;

  std::shared_ptr<store::store> open() {
    auto opened = store::store::open(folder.path() / "store");
    REQUIRE(opened);
    return *opened;
  }
};

inline std::string conversation(int number) {
  return R"({"messages": [{"role": "user", "content": "What is )" + std::to_string(number) +
         R"(?"}, {"role": "assistant", "content": "It is )" +
         std::string(static_cast<std::size_t>(number % 5 + 1), 'x') + R"(."}]})" + "\n";
}

inline std::string conversations(int count) {
  std::string lines;
  for (int i = 0; i < count; ++i) lines += conversation(i);
  return lines;
}

class training_world : public serving_world {
 public:
  training_world(disk& on, std::shared_ptr<store::store> open_store,
                 std::vector<std::string> devices = {"cpu:0"}, fake_device_script script = {},
                 bool devices_apart = false)
      : serving_world(std::move(devices), std::move(script)), store(std::move(open_store)) {
    auto context = std::make_shared<actors::train_context>();
    const auto model = byte_model();
    context->store = store;
    context->base_name = "fake";
    context->config.layers.resize(1);
    context->config.context_length = 200;
    context->reader.tokenizer = model->tokenizer;
    context->reader.chat_template = model->chat_template;
    context->reader.eos_ids = model->eos_ids;
    context->directory = on.folder.path() / "jobs";
    context->own_threads = false;
    context->devices_apart = devices_apart;
    desk = house(system().spawn(actors::train_desk,
                                std::shared_ptr<const actors::train_context>(std::move(context)),
                                coordinator, serve_coordinator));
    watch_ = store->watch(
        [this](const std::string& job) { caf::anon_send(desk, actors::job_changed{job}); });
  }
  ~training_world() { store->unwatch(watch_); }

  job_status status(const std::string& job) { return store->find_job(job)->status; }
  std::vector<store::event_record> events(const std::string& job) {
    return *store->events_since(job, 0, 10000);
  }
  bool told(const std::string& job, std::string_view words) {
    for (const auto& event : events(job))
      if (event.message.find(words) != std::string::npos) return true;
    return false;
  }
  std::string hash(const std::string& job) {
    for (const auto& event : events(job)) {
      const auto data = text::value::from_json(event.data_json);
      if (!data) continue;
      if (const auto* found = data->find("parameters_sha256")) return *found->if_string();
    }
    return {};
  }
  // Runs until the job has done so many steps.
  void run_to_step(const std::string& job, std::int64_t step) {
    int idle = 0;
    while (store->find_job(job)->step < step) {
      if (scheduler().try_run_once()) continue;
      REQUIRE(++idle < 1000);
      scheduler().advance_time(10ms);
    }
  }
  void run_to_end() { pass(5s); }
  // The keeper's part: the coordinator dies, and everybody hears of the next one.
  void change_coordinator() {
    caf::anon_send_exit(coordinator, caf::exit_reason::kill);
    coordinator = house(system().spawn(actors::coordinator, actors::coordinator_options{}));
    for (const auto& who :
         {caf::actor_cast<caf::actor>(serve_coordinator), caf::actor_cast<caf::actor>(gateway),
          caf::actor_cast<caf::actor>(desk), caf::actor_cast<caf::actor>(node)})
      caf::anon_send(who, actors::coordinator_changed{coordinator});
  }

  std::shared_ptr<store::store> store;
  actors::train_desk_actor desk;

 private:
  int watch_ = 0;
};

inline std::string add_job(disk& on, store::store& store, std::string_view own = "{}",
                           std::string_view lines = {}) {
  const auto text = lines.empty() ? conversations(24) : std::string(lines);
  const auto file = on.folder.write("upload.jsonl", text);
  store::file_record record;
  record.filename = "upload.jsonl";
  record.purpose = "fine-tune";
  const auto added = store.add_file(record, file);
  REQUIRE(added);
  store::job_record job;
  job.model = "fake";
  job.training_file = added->id;
  job.seed = 3;
  job.hyperparameters_json = R"({"n_epochs": 2, "batch_size": 4})";
  job.own_json = own;
  const auto made = store.add_job(job);
  REQUIRE(made);
  return made->id;
}

inline constexpr std::string_view often =
    R"({"slots": 2, "checkpoint_every_steps": 2, "checkpoints_kept": 2})";
inline constexpr std::int64_t all_steps = 12;  // 24 examples by 4, twice

// The hash of a run that nothing disturbed.
inline std::string undisturbed(std::string_view own = often,
                               std::vector<std::string> devices = {"cpu:0"},
                               bool devices_apart = false) {
  disk on;
  auto store = on.open();
  const auto job = add_job(on, *store, own);
  training_world world(on, store, std::move(devices), {}, devices_apart);
  world.run_to_end();
  REQUIRE(world.status(job) == job_status::succeeded);
  return world.hash(job);
}

}  // namespace tandem::test
