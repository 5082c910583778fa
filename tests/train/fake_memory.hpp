// A device's training memory as a checkpoint writer sees it: numbers that say where they are from.
#pragma once

#include "runtime/train/trainer.hpp"

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace tandem::test {

class fake_memory : public train::trainer_memory {
 public:
  // Device `rank` of `count` over `floats` numbers after `step` steps; shards end at odd places.
  fake_memory(std::size_t floats, std::int64_t step, std::size_t rank = 0, std::size_t count = 1)
      : begin_(floats * rank / count), end_(floats * (rank + 1) / count) {
    for (std::size_t i = 0; i < floats; ++i) {
      parameters_.push_back(parameter_at(i, step));
      if (i < begin_ || i >= end_) continue;
      first_.push_back(-parameter_at(i, step));
      second_.push_back(parameter_at(i, step) * 0.5F);
    }
    const std::size_t half = floats / 2;
    layout_ = {{"model.embed_tokens.weight", 0, half, true},
               {"model.norm.weight", half, floats - half, false}};
  }
  static float parameter_at(std::size_t index, std::int64_t step) {
    return static_cast<float>(index % 8191) + static_cast<float>(step) * 0.125F;
  }

  train::state_view view() const override { return {parameters_, first_, second_, begin_, end_}; }
  const std::vector<train::parameter>& layout() const override { return layout_; }

 private:
  std::size_t begin_;
  std::size_t end_;
  std::vector<float> parameters_;
  std::vector<float> first_;
  std::vector<float> second_;
  std::vector<train::parameter> layout_;
};

inline std::vector<std::shared_ptr<train::trainer_memory>> fake_group(std::size_t floats,
                                                                      std::int64_t step,
                                                                      std::size_t count = 1) {
  std::vector<std::shared_ptr<train::trainer_memory>> group;
  for (std::size_t rank = 0; rank < count; ++rank)
    group.push_back(std::make_shared<fake_memory>(floats, step, rank, count));
  return group;
}

inline train::checkpoint_facts facts_at(std::int64_t step) {
  train::checkpoint_facts facts;
  facts.job = "ftjob-0123456789abcdef";
  facts.model_path = "/models/tiny \"one\".gguf";
  facts.base_name = "tiny";
  facts.step = step;
  facts.step_count = 100;
  facts.trained_tokens = step * 4096;
  facts.settings.targets = {"q_proj", "v_proj"};
  facts.settings.learning_rate = 3e-4;
  facts.settings.seed = 7;
  facts.metrics = text::value::object{{"train_loss", 2.125}, {"lr", 3e-4}};
  return facts;
}

}  // namespace tandem::test
