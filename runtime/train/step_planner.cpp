// Steps from settings and data alone: which examples (their order), which rows (packing), which
// slot and round (dealing). Nothing is remembered but the order of the epoch asked for last.
#include "runtime/train/step_planner.hpp"

#include "kernels/ensure.hpp"
#include "runtime/train/example_order.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

namespace tandem::train {
namespace {

std::int64_t ceil_of(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Rows as lists of examples: each goes to the first row that still has room for it.
std::vector<std::vector<const example*>> fill_rows(const dataset& data,
                                                   const std::vector<std::int64_t>& indices,
                                                   const job_settings& settings) {
  std::vector<std::vector<const example*>> rows;
  std::vector<std::int64_t> room;
  for (const std::int64_t index : indices) {
    const example& e = data.examples[static_cast<std::size_t>(index)];
    const auto length = static_cast<std::int64_t>(e.ids.size());
    ensure(length <= settings.sequence_length, "an example longer than a row");
    std::size_t row = rows.size();
    if (settings.packing)
      row = static_cast<std::size_t>(
          std::find_if(room.begin(), room.end(), [&](std::int64_t r) { return r >= length; }) -
          room.begin());
    if (row == rows.size()) {
      rows.emplace_back();
      room.push_back(settings.sequence_length);
    }
    rows[row].push_back(&e);
    room[row] -= length;
  }
  return rows;
}

step_rows deal(const dataset& data, const std::vector<std::int64_t>& indices,
               const job_settings& settings) {
  const auto rows = fill_rows(data, indices, settings);
  const auto slots = static_cast<std::size_t>(settings.slots);
  const auto micro_batch = static_cast<std::size_t>(settings.micro_batch);
  step_rows out;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::size_t round = i / (micro_batch * slots);
    if (round == out.rounds.size()) out.rounds.push_back({std::vector<slot_rows>(slots)});
    slot_rows& slot = out.rounds[round].slots[(i / micro_batch) % slots];
    for (const example* e : rows[i]) {
      slot.ids.insert(slot.ids.end(), e->ids.begin(), e->ids.end());
      slot.targets.insert(slot.targets.end(), e->targets.begin(), e->targets.end());
      slot.example_rows.push_back(static_cast<std::int32_t>(e->ids.size()));
      out.counted += e->counted();
    }
  }
  return out;
}

}  // namespace

step_planner::step_planner(std::shared_ptr<const dataset> data, const job_settings& settings)
    : data_(std::move(data)), settings_(settings), kept_(std::make_shared<kept_order>()) {
  ensure(data_ != nullptr && !data_->examples.empty(), "steps of no data");
  ensure(settings_.batch_size >= 1 && settings_.epochs >= 1, "steps of nothing");
  ensure(settings_.slots >= 1 && settings_.micro_batch >= 1, "rows for no slot");
}

std::int64_t step_planner::steps_per_epoch() const {
  return ceil_of(static_cast<std::int64_t>(data_->examples.size()), settings_.batch_size);
}

std::int64_t step_planner::step_count() const { return steps_per_epoch() * settings_.epochs; }

std::shared_ptr<const std::vector<std::uint32_t>> step_planner::order_of(std::int64_t epoch) const {
  const std::lock_guard lock(kept_->mutex);
  if (kept_->order == nullptr || kept_->epoch != epoch) {
    kept_->order = std::make_shared<const std::vector<std::uint32_t>>(
        shuffled_order(static_cast<std::int64_t>(data_->examples.size()), settings_.seed, epoch));
    kept_->epoch = epoch;
  }
  return kept_->order;
}

std::vector<std::int64_t> step_planner::examples_of(std::int64_t step) const {
  ensure(step >= 1 && step <= step_count(), "a step of the job");
  const std::int64_t epoch = (step - 1) / steps_per_epoch();
  const std::int64_t begin = (step - 1) % steps_per_epoch() * settings_.batch_size;
  const std::int64_t end =
      std::min(begin + settings_.batch_size, static_cast<std::int64_t>(data_->examples.size()));
  const auto order = settings_.shuffle ? order_of(epoch) : nullptr;
  std::vector<std::int64_t> indices;
  for (std::int64_t i = begin; i < end; ++i)
    indices.push_back(order ? (*order)[static_cast<std::size_t>(i)] : i);
  return indices;
}

step_rows step_planner::rows_of(std::int64_t step) const {
  step_rows rows = deal(*data_, examples_of(step), settings_);
  rows.step = step;
  return rows;
}

std::int64_t step_planner::evaluation_batches() const { return steps_per_epoch(); }

step_rows step_planner::evaluation_rows(std::int64_t batch) const {
  ensure(batch >= 0 && batch < evaluation_batches(), "a batch of the data");
  std::vector<std::int64_t> indices;
  const auto count = static_cast<std::int64_t>(data_->examples.size());
  const std::int64_t begin = batch * settings_.batch_size;
  for (std::int64_t i = begin; i < std::min(begin + settings_.batch_size, count); ++i)
    indices.push_back(i);
  return deal(*data_, indices, settings_);
}

double learning_rate_at(const job_settings& settings, std::int64_t step, std::int64_t step_count) {
  ensure(step >= 1 && step <= step_count, "a step of the job");
  const std::int64_t warmup = settings.warmup_steps;
  if (step <= warmup)
    return settings.learning_rate * (static_cast<double>(step) / static_cast<double>(warmup));
  // Steps done and to be done since the warm-up; the first after it has the whole rate.
  const auto done = static_cast<double>(step - 1 - warmup);
  const auto all = static_cast<double>(step_count - warmup);
  double share = 1.0;
  switch (settings.schedule) {
    case schedule_kind::constant:
      break;
    case schedule_kind::linear:
      share = (all - done) / all;
      break;
    case schedule_kind::cosine:
      share = 0.5 * (1.0 + std::cos(std::numbers::pi * (done / all)));
      break;
    case schedule_kind::warmup_stable_decay: {
      const std::int64_t decay =
          std::min(std::max<std::int64_t>(1, step_count / 5), step_count - warmup);
      share = std::min(1.0,
                       static_cast<double>(step_count - step + 1) / static_cast<double>(decay + 1));
      break;
    }
  }
  return settings.learning_rate * share;
}

}  // namespace tandem::train
