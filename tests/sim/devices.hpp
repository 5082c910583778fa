// The simulation's devices: the fakes of the actor tests whose pieces take virtual time, with a
// ledger that every byte of theirs passes.
#pragma once

#include "actors/fault.hpp"
#include "actors/train_clerk.hpp"
#include "runtime/memory/ledger.hpp"
#include "tests/sim/memory_store.hpp"
#include "tests/support/fake_device.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tandem::sim {

// Checkpoints without files, by path.
struct checkpoint {
  std::int64_t step = 0;
  std::int64_t trained_tokens = 0;
  std::vector<float> parameters;
  std::vector<float> first;
  std::vector<float> second;
  std::int64_t lead = 0;  // of the head that wrote it
};
using shelf = std::map<std::string, checkpoint>;

// What the devices of a world share and report to.
struct ground {
  std::shared_ptr<shelf> checkpoints = std::make_shared<shelf>();
  std::map<std::string, double> slowness;      // by device; 1: as made
  int slots = 8;                               // of every job
  std::shared_ptr<const train::dataset> data;  // likewise
  std::chrono::nanoseconds serve_piece{};
  std::chrono::nanoseconds train_piece{};
  double memory_filled = 0.6;
  double peak_memory = 0.0;
  std::int64_t busy_ns = 0;
  std::uint64_t begun = 0;  // steps and orders of training, of all devices
  std::vector<std::string> violations;
  void violated(std::string what) {
    if (violations.size() < 8) violations.push_back(std::move(what));
  }
};

class sim_device final : public test::fake_training_device {
 public:
  static constexpr std::uint64_t capacity = 1000;

  sim_device(std::string name, std::shared_ptr<ground> on, test::fake_device_script script)
      : name_(name), on_(std::move(on)), inner_(std::move(name), std::move(script)) {}

  void attach_calling_thread() override {}
  serve::device_facts facts() const override {
    serve::device_facts facts{name_, "sim", 1, false, capacity, {}};
    for (std::size_t i = 0; i < memory::owner_count; ++i)
      facts.memory_by_owner[i] = ledger_.used_by(static_cast<memory::owner>(i));
    return facts;
  }
  result<serve::loaded_model> load(const serve::load_order& order) override {
    release(memory::owner::weights, weights_);
    if (auto fits = take(memory::owner::weights, serving_bytes(), weights_); !fits)
      return fits.error();
    return inner_.load(order);
  }
  void unload() override { release(memory::owner::weights, weights_); }
  result<void> begin(serve::step_plan plan) override {
    ++on_->begun;
    return inner_.begin(std::move(plan));
  }
  bool advance() override {
    takes_ = cost(on_->serve_piece);
    return inner_.advance();
  }
  std::chrono::nanoseconds piece_time() const override { return takes_; }
  serve::step_result finish() override { return inner_.finish(); }
  void reset() override { inner_.reset(); }
  result<serve::device_facts> add_variant(serve::variant_id id,
                                          const serve::variant& what) override {
    if (auto added = inner_.add_variant(id, what); !added) return added.error();
    return facts();
  }
  void remove_variant(serve::variant_id id) override { inner_.remove_variant(id); }
  result<serve::variant> load_variant(const std::string& path, std::uint64_t version,
                                      const pause_point& pause) override {
    return inner_.load_variant(path, version, pause);
  }

  result<train::opened> open_training(const train::open_order& order,
                                      const pause_point& pause) override {
    release(memory::owner::optimizer, job_);
    if (auto fits = take(memory::owner::optimizer, job_bytes(), job_); !fits) return fits.error();
    auto fresh = order;
    fresh.checkpoint.clear();
    open_job_ = order.job;
    auto opened = fake_training_device::open_training(fresh, pause);
    if (!opened || order.checkpoint.empty()) return opened;
    const auto& from = on_->checkpoints->at(order.checkpoint);
    auto& to = dynamic_cast<test::fake_trainer_memory&>(*opened->shared);
    to.parameters = from.parameters;
    to.first = from.first;
    to.second = from.second;
    opened->step = from.step;
    return opened;
  }
  result<void> begin_training(train::order what) override {
    if (what.job != open_job_) return error{errc::conflict, what.job + " is not open here", ""};
    ++on_->begun;
    return fake_training_device::begin_training(std::move(what));
  }
  bool advance_training() override {
    takes_ = cost(on_->train_piece);
    return fake_training_device::advance_training();
  }
  void close_training(const std::string& job) override {
    if (job != open_job_) return;
    open_job_.clear();
    fake_training_device::close_training(job);
    release(memory::owner::optimizer, job_);
  }

 private:
  std::uint64_t serving_bytes() const {
    return static_cast<std::uint64_t>(0.4 * on_->memory_filled * capacity);
  }
  std::uint64_t job_bytes() const {
    return static_cast<std::uint64_t>(0.6 * on_->memory_filled * capacity);
  }
  result<void> take(memory::owner who, std::uint64_t bytes, std::uint64_t& held) {
    if (auto fits = ledger_.reserve(who, bytes, "a simulated device"); !fits) return fits;
    held = bytes;
    const auto share = static_cast<double>(ledger_.used()) / capacity;
    on_->peak_memory = std::max(on_->peak_memory, share);
    if (share > 1.0) on_->violated(name_ + " holds more memory than it has");
    return {};
  }
  void release(memory::owner who, std::uint64_t& held) {
    if (held > 0) ledger_.release(who, std::exchange(held, 0));
  }
  std::chrono::nanoseconds cost(std::chrono::nanoseconds piece) {
    const auto slow = on_->slowness.find(name_);
    const auto factor = slow == on_->slowness.end() ? 1.0 : slow->second;
    const auto takes = std::chrono::nanoseconds(
        static_cast<std::int64_t>(static_cast<double>(piece.count()) * factor));
    on_->busy_ns += takes.count();
    return takes;
  }

  std::string name_;
  std::shared_ptr<ground> on_;
  test::fake_device inner_;  // its serving half
  memory::ledger ledger_{capacity};
  std::uint64_t weights_ = 0;
  std::uint64_t job_ = 0;
  std::string open_job_;
  std::chrono::nanoseconds takes_{};
};

// A job of six steps that may lie on so many devices. What a step reads decides what its parameters
// become.
inline std::shared_ptr<const train::dataset> made_up_data(int slots) {
  auto data = std::make_shared<train::dataset>();
  for (int i = 0; i < 6 * slots; ++i) {
    train::example one;
    for (int t = 0; t < 4 + i % 3; ++t) one.ids.push_back((i * 7 + t * 3) % 50);
    one.targets.assign(one.ids.begin() + 1, one.ids.end());
    one.targets.push_back(-1);
    data->tokens += static_cast<std::int64_t>(one.ids.size());
    data->counted += one.counted();
    data->longest = std::max(data->longest, static_cast<std::int64_t>(one.ids.size()));
    data->examples.push_back(std::move(one));
  }
  return data;
}

inline train::job_settings made_up_settings(int slots) {
  train::job_settings settings;
  settings.epochs = 1;
  settings.batch_size = slots;
  settings.slots = slots;
  settings.sequence_length = 16;
  settings.packing = false;
  settings.seed = 3;
  settings.learning_rate = 1e-6;
  settings.schedule = train::schedule_kind::constant;
  settings.checkpoint_every_steps = 2;
  return settings;
}

// A clerk without files. Checkpoints are copies of what the group's memory holds, by home.
struct sim_clerk_state {
  std::shared_ptr<ground> on;
  std::shared_ptr<memory_store> store;
  static inline const char* name = "sim_clerk";
};
using sim_clerk_self = actors::train_clerk_actor::stateful_pointer<sim_clerk_state>;

// What one rank has for a checkpoint: from its courier, or else from its copy.
inline void fetch_saved(sim_clerk_self self,
                        const std::shared_ptr<const actors::save_checkpoint>& order,
                        const train::memory_range& what, float* to,
                        const std::function<void()>& came,
                        const std::function<void(const caf::error&)>& failed,
                        bool from_copy = false) {
  const auto rank = static_cast<std::size_t>(what.rank);
  const int buddy = order->copies_at.empty() ? -1 : order->copies_at[rank];
  auto from = what;
  if (!order->couriers[rank] || from_copy) {
    if (buddy < 0 || !order->couriers[static_cast<std::size_t>(buddy)])
      return failed(actors::to_caf({errc::unavailable, "neither it nor its copy is there", ""}));
    from = train::kept_at(what, buddy);
    from_copy = true;
  }
  self->request(order->couriers[static_cast<std::size_t>(from.rank)], std::chrono::minutes(2),
                actors::fetch_range{from})
      .then(
          [=](const actors::tensor_ref& bytes) {
            std::memcpy(to, bytes.data->data(), what.count * sizeof(float));
            came();
          },
          [=](const caf::error& why) {
            if (from_copy || buddy < 0) return failed(why);
            fetch_saved(self, order, what, to, came, failed, true);
          });
}

// What lies on the shelf afterwards; a head that was followed by another may not put it there.
inline result<void> put_on_shelf(ground& on, memory_store& store, const std::string& job,
                                 checkpoint saving) {
  if (auto ours = store.writable(); !ours) return ours;
  saving.lead = store.lead();
  for (const auto& [path, kept] : *on.checkpoints)
    if (path.starts_with(job + "/") && kept.lead > saving.lead)
      on.violated(fmt::format("the head of epoch {} wrote a checkpoint of {} after that of {}",
                              saving.lead, job, kept.lead));
  (*on.checkpoints)[job + "/" + std::to_string(saving.step)] = std::move(saving);
  return {};
}

inline actors::train_clerk_actor::behavior_type sim_clerk(sim_clerk_self self,
                                                          std::shared_ptr<ground> on,
                                                          std::shared_ptr<memory_store> store) {
  self->state.on = std::move(on);
  self->state.store = std::move(store);
  return {
      [=](const actors::prepare_job& order) -> caf::result<actors::prepared_job> {
        const auto& shared = *self->state.on;
        if (auto job = self->state.store->find_job(order.job); !job)
          return actors::to_caf(job.error());
        actors::prepared_job ready;
        ready.settings = made_up_settings(shared.slots);
        ready.training = std::make_shared<const train::step_planner>(shared.data, ready.settings);
        std::int64_t newest = -1;
        for (const auto& [path, kept] : *shared.checkpoints)
          if (path.starts_with(order.job + "/") && kept.step > newest) {
            newest = kept.step;
            ready.checkpoint = path;
            ready.trained_tokens = kept.trained_tokens;
          }
        return ready;
      },
      [=](const actors::save_checkpoint& order) -> caf::result<actors::checkpoint_saved> {
        if (auto ours = self->state.store->writable(); !ours) return actors::to_caf(ours.error());
        auto saving = std::make_shared<checkpoint>();
        saving->step = order.facts.step;
        saving->trained_tokens = order.facts.trained_tokens;
        for (auto* arena : {&saving->parameters, &saving->first, &saving->second})
          arena->resize(test::fake_trainer_memory::count);
        for (const auto& member : order.group) {
          if (member == nullptr) continue;  // its courier is asked below
          const auto& home = dynamic_cast<const test::fake_trainer_memory&>(*member);
          for (std::size_t i = home.begin; i < home.end; ++i) {
            saving->parameters[i] = home.parameters[i];
            saving->first[i] = home.first[i];
            saving->second[i] = home.second[i];
          }
        }
        auto answer = self->make_response_promise<actors::checkpoint_saved>();
        auto missing = std::make_shared<std::size_t>(1);
        const auto one_less = [=, job = order.facts.job] {
          if (--*missing > 0) return;
          auto whoever_asked = answer;
          if (auto put = put_on_shelf(*self->state.on, *self->state.store, job, *saving); !put)
            whoever_asked.deliver(actors::to_caf(put.error()));
          else
            whoever_asked.deliver(actors::checkpoint_saved{
                saving->step, job + "/" + std::to_string(saving->step), {}});
        };
        const auto failed = [=](const caf::error& why) {  // one refusal is the answer
          auto whoever_asked = answer;
          if (whoever_asked.pending()) whoever_asked.deliver(why);
        };
        const auto kept = std::make_shared<const actors::save_checkpoint>(order);
        for (const auto& shard : order.shards) {
          if (order.group[static_cast<std::size_t>(shard.rank)] != nullptr) continue;
          for (const auto& [arena, into] :
               {std::pair{train::arena_kind::parameters, &saving->parameters},
                std::pair{train::arena_kind::first_moments, &saving->first},
                std::pair{train::arena_kind::second_moments, &saving->second}}) {
            auto what = shard;
            what.arena = arena;
            ++*missing;
            // `saving` lives as long as `one_less` does.
            fetch_saved(self, kept, what, into->data() + what.first, one_less, failed);
          }
        }
        one_less();
        return answer;
      },
      [=](const actors::write_results&) -> caf::result<actors::results_written> {
        if (auto added = self->state.store->add_event({}); !added)  // as add_file would
          return actors::to_caf(added.error());
        return actors::results_written{"results", "sim"};
      },
  };
}

}  // namespace tandem::sim
