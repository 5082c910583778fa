// A device without arithmetic: the token after a history is a fixed function of that history and of
// the version it runs on, so a wrong block, position, replay or version changes the text. Steps
// have as many pieces as asked for.
#pragma once

#include "runtime/serve/device.hpp"
#include "tests/support/fake_training.hpp"

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace tandem::test {

// What the fake's model says after these tokens; version 0 is the base.
inline serve::token_id next_token(const std::vector<serve::token_id>& history, int vocabulary,
                                  std::uint64_t version = 0) {
  std::uint64_t hash = 1469598103934665603U ^ (version * 0x9e3779b97f4a7c15U);
  for (auto id : history) hash = (hash ^ static_cast<std::uint64_t>(id + 1)) * 1099511628211U;
  return static_cast<serve::token_id>((hash >> 17U) % static_cast<std::uint64_t>(vocabulary));
}

struct fake_device_script {
  int vocabulary = 100;
  std::int64_t kv_blocks = 64;
  std::int64_t context_length = 256;
  int pieces = 3;
  bool lends_kv = false;                               // other devices may copy its keys and values
  bool steps_ahead = true;                             // as a GPU has it
  std::uint64_t dies_at_step = 0;                      // throws in this step; 0: never
  std::uint64_t sticks_at_step = 0;                    // this step never ends; 0: none does
  std::function<void(const serve::step_plan&)> watch;  // sees every plan
  std::function<void()> between_pieces;
  error load_failure{errc::internal, "", ""};  // a detail: load fails with it
  fake_training_script training;
  std::size_t variants_max = 100;            // more are refused for want of memory
  std::function<void(std::string)> log;      // "add 1", "remove 1", "load step-3"
  std::function<bool()> loads_version_when;  // it pauses until then; empty: at once
};

class fake_device final : public fake_training_device {
 public:
  fake_device(std::string name, fake_device_script script)
      : name_(std::move(name)), script_(std::move(script)) {
    training = script_.training;
  }

  void attach_calling_thread() override {}
  serve::device_facts facts() const override {
    return {name_, "fake", 1, name_.starts_with("cuda"), 1 << 20, {}};
  }

  result<serve::loaded_model> load(const serve::load_order& order) override {
    if (!script_.load_failure.detail.empty()) return script_.load_failure;
    serve::loaded_model loaded;
    loaded.weights_version = 1;
    loaded.precision = "fake";
    loaded.context_length = script_.context_length;
    loaded.kv_blocks = script_.kv_blocks;
    loaded.max_logit_rows = order.max_sequences;
    loaded.facts = facts();
    loaded.steps_ahead = script_.steps_ahead;
    memory_ = std::make_shared<std::vector<written>>(static_cast<std::size_t>(script_.kv_blocks) *
                                                     kernels::kv_block_positions);
    if (script_.lends_kv)
      loaded.kv = std::make_shared<const memory::kv_memory>(
          memory::kv_memory{memory_,
                            std::as_bytes(std::span(*memory_)),
                            kernels::kv_block_positions * sizeof(written),
                            "fake",
                            {}});
    variants_.clear();
    return loaded;
  }
  void unload() override {}

  result<void> begin(serve::step_plan plan) override {
    if (script_.watch) script_.watch(plan);
    plan_ = std::move(plan);
    piece_ = 0;
    ++steps_;
    // A step keeps what it began with, whatever is removed meanwhile.
    for (const auto& start : plan_.starts) runs_on_[start.slot] = start.variant;
    for (const auto& chunk : plan_.chunks)
      versions_[chunk.slot] = version_of(runs_on_.at(chunk.slot));
    return {};
  }

  std::chrono::nanoseconds piece_time() const override {
    const bool stuck = script_.sticks_at_step != 0 && steps_ == script_.sticks_at_step;
    return stuck ? std::chrono::hours(1000) : fake_training_device::piece_time();
  }

  bool advance() override {
    if (script_.between_pieces) script_.between_pieces();
    if (script_.dies_at_step != 0 && steps_ == script_.dies_at_step)
      throw std::runtime_error("the fake device fell off the bus");
    return ++piece_ < script_.pieces;
  }

  serve::step_result finish() override {
    serve::step_result done;
    done.number = plan_.number;
    done.device_ns = 1000;
    for (auto slot : plan_.releases) tables_.erase(slot);
    for (const auto& start : plan_.starts) tables_[start.slot] = {};
    for (const auto& copy : plan_.copies)
      for (const auto& [there, here] : copy.blocks) {
        const auto from = copy.from->block(there);
        std::memcpy(&memory_->at(static_cast<std::size_t>(here) * kernels::kv_block_positions),
                    from.data(), from.size());
      }
    for (const auto& chunk : plan_.chunks) {
      auto& table = tables_.at(chunk.slot);
      const auto version = versions_.at(chunk.slot);
      table.insert(table.end(), chunk.new_blocks.begin(), chunk.new_blocks.end());
      int position = chunk.first_position;
      for (auto id : chunk.tokens) cell(table, position++) = {id, version};
      if (!chunk.sample) continue;
      std::vector<serve::token_id> history;
      for (int p = 0; p < position; ++p) {
        if (cell(table, p).version != version)
          throw std::logic_error("keys and values of another version were read");
        history.push_back(cell(table, p).id);
      }
      serve::sampled_token drawn;
      drawn.slot = chunk.slot;
      drawn.token.id = next_token(history, script_.vocabulary, version);
      done.sampled.push_back(drawn);
    }
    return done;
  }

  void reset() override { tables_.clear(); }

  result<serve::device_facts> add_variant(serve::variant_id id,
                                          const serve::variant& what) override {
    if (script_.log) script_.log("add " + std::to_string(id));
    if (variants_.size() >= script_.variants_max)
      return error{errc::no_memory, "an adapter wants 9 MiB, 1 MiB is free", ""};
    variants_.emplace(id, what);
    return facts();
  }
  void remove_variant(serve::variant_id id) override {
    if (script_.log) script_.log("remove " + std::to_string(id));
    variants_.erase(id);
  }
  result<serve::variant> load_variant(const std::string& checkpoint, std::uint64_t version,
                                      const pause_point& pause) override {
    while (script_.loads_version_when && !script_.loads_version_when()) pause();
    if (script_.log) script_.log("load " + checkpoint);
    return serve::variant{version, nullptr, nullptr};
  }

 private:
  struct written {
    serve::token_id id = -1;
    std::uint64_t version = 0;
  };

  std::uint64_t version_of(serve::variant_id id) const {
    if (id == 0) return 0;
    const auto it = variants_.find(id);
    if (it == variants_.end()) throw std::logic_error("a sequence runs on what was removed");
    return it->second.version;
  }
  written& cell(const std::vector<std::int32_t>& table, int position) {
    const auto block = table.at(static_cast<std::size_t>(position / kernels::kv_block_positions));
    return memory_->at(static_cast<std::size_t>(block * kernels::kv_block_positions +
                                                position % kernels::kv_block_positions));
  }

  std::string name_;
  fake_device_script script_;
  serve::step_plan plan_;
  int piece_ = 0;
  std::uint64_t steps_ = 0;
  std::shared_ptr<std::vector<written>> memory_ = std::make_shared<std::vector<written>>();
  std::map<serve::variant_id, serve::variant> variants_;
  std::map<serve::slot_index, serve::variant_id> runs_on_;
  std::map<serve::slot_index, std::uint64_t> versions_;  // of the step in flight
  std::map<serve::slot_index, std::vector<std::int32_t>> tables_;
};

}  // namespace tandem::test
