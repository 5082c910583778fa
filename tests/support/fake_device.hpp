// A device without arithmetic: the token after a history is a fixed function of that history, so a
// wrong block, position or replay changes the text. Steps have as many pieces as asked for.
#pragma once

#include "runtime/serve/device.hpp"
#include "tests/support/fake_training.hpp"

#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace tandem::test {

// What the fake's model says after these tokens.
inline serve::token_id next_token(const std::vector<serve::token_id>& history, int vocabulary) {
  std::uint64_t hash = 1469598103934665603U;
  for (auto id : history) hash = (hash ^ static_cast<std::uint64_t>(id + 1)) * 1099511628211U;
  return static_cast<serve::token_id>((hash >> 17U) % static_cast<std::uint64_t>(vocabulary));
}

struct fake_device_script {
  int vocabulary = 100;
  std::int64_t kv_blocks = 64;
  std::int64_t context_length = 256;
  int pieces = 3;
  std::uint64_t dies_at_step = 0;                      // throws in this step; 0: never
  std::function<void(const serve::step_plan&)> watch;  // sees every plan
  std::function<void()> between_pieces;
  error load_failure{errc::internal, "", ""};  // a detail: load fails with it
  fake_training_script training;
};

class fake_device final : public fake_training_device {
 public:
  fake_device(std::string name, fake_device_script script)
      : name_(std::move(name)), script_(std::move(script)) {
    training = script_.training;
  }

  void attach_calling_thread() override {}
  serve::device_facts facts() const override { return {name_, "fake", 1, 1 << 20, {}}; }

  result<serve::loaded_model> load(const serve::load_order& order) override {
    if (!script_.load_failure.detail.empty()) return script_.load_failure;
    serve::loaded_model loaded;
    loaded.weights_version = 1;
    loaded.precision = "fake";
    loaded.context_length = script_.context_length;
    loaded.kv_blocks = script_.kv_blocks;
    loaded.max_logit_rows = order.max_sequences;
    loaded.facts = facts();
    memory_.assign(static_cast<std::size_t>(script_.kv_blocks) * kernels::kv_block_positions, -1);
    return loaded;
  }
  void unload() override {}

  result<void> begin(serve::step_plan plan) override {
    if (script_.watch) script_.watch(plan);
    plan_ = std::move(plan);
    piece_ = 0;
    ++steps_;
    return {};
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
    for (const auto& chunk : plan_.chunks) {
      auto& table = tables_.at(chunk.slot);
      table.insert(table.end(), chunk.new_blocks.begin(), chunk.new_blocks.end());
      int position = chunk.first_position;
      for (auto id : chunk.tokens) cell(table, position++) = id;
      if (!chunk.sample) continue;
      std::vector<serve::token_id> history;
      for (int p = 0; p < position; ++p) history.push_back(cell(table, p));
      serve::sampled_token drawn;
      drawn.slot = chunk.slot;
      drawn.token.id = next_token(history, script_.vocabulary);
      done.sampled.push_back(drawn);
    }
    return done;
  }

  void reset() override { tables_.clear(); }

 private:
  serve::token_id& cell(const std::vector<std::int32_t>& table, int position) {
    const auto block = table.at(static_cast<std::size_t>(position / kernels::kv_block_positions));
    return memory_.at(static_cast<std::size_t>(block * kernels::kv_block_positions +
                                               position % kernels::kv_block_positions));
  }

  std::string name_;
  fake_device_script script_;
  serve::step_plan plan_;
  int piece_ = 0;
  std::uint64_t steps_ = 0;
  std::vector<serve::token_id> memory_;
  std::map<serve::slot_index, std::vector<std::int32_t>> tables_;
};

}  // namespace tandem::test
