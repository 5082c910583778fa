// Which examples each optimizer step reads, and how its rows lie on slots and rounds. A pure
// function of settings, data and step number: a run that was paused, killed or moved to other
// devices reads on exactly where it was. Every example is in exactly one step of an epoch.
#pragma once

#include "runtime/train/batch.hpp"
#include "runtime/train/dataset.hpp"
#include "runtime/train/job_settings.hpp"

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace tandem::train {

class step_planner {
 public:
  step_planner(std::shared_ptr<const dataset> data, const job_settings& settings);

  std::int64_t steps_per_epoch() const;  // the last step of an epoch may have fewer examples
  std::int64_t step_count() const;       // over all epochs
  // Example indices of a step (counted from 1), in reading order: a permutation of all examples an
  // epoch, another each epoch (by settings.seed), the file's order without shuffle.
  std::vector<std::int64_t> examples_of(std::int64_t step) const;
  // Its rows: examples packed into rows of at most sequence_length tokens (first fit in reading
  // order; without packing one example a row), row i dealt to slot (i / micro_batch) % slots of
  // round i / (micro_batch * slots).
  step_rows rows_of(std::int64_t step) const;
  // The same layout for validation: batches of `data`'s examples in the file's order.
  std::int64_t evaluation_batches() const;
  step_rows evaluation_rows(std::int64_t batch) const;  // batch from 0

 private:
  // Shuffling once an epoch is enough. Shared by copies, used under its lock.
  struct kept_order {
    std::mutex mutex;
    std::int64_t epoch = -1;
    std::shared_ptr<const std::vector<std::uint32_t>> order;
  };
  std::shared_ptr<const std::vector<std::uint32_t>> order_of(std::int64_t epoch) const;

  std::shared_ptr<const dataset> data_;
  job_settings settings_;
  std::shared_ptr<kept_order> kept_;
};

// The learning rate of a step (from 1) of step_count: linear warm-up over W = warmup_steps (step s
// has s / W of it), then constant; linear to 0; cosine to 0 (Loshchilov & Hutter 2016,
// arXiv:1608.03983); or constant and linear to 0 over the last fifth (warm-up-stable-decay, Hu et
// al. 2024, arXiv:2404.06395). The first step after the warm-up has the whole rate, and 0 would be
// reached by the step after the last, so that no step is wasted (as transformers' schedulers do).
double learning_rate_at(const job_settings& settings, std::int64_t step, std::int64_t step_count);

}  // namespace tandem::train
