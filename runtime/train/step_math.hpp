// Small decisions of a training run, pure: what is due after a step, how gradients are clipped, how
// fast it goes, and what its versions are called.
#pragma once

#include "runtime/train/job_settings.hpp"
#include "runtime/train/order.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::train {

struct due_work {
  bool checkpoint = false;
  bool publish = false;  // a checkpoint is always callable, so it publishes too
  bool last = false;
  bool operator==(const due_work&) const = default;
};
// After `step` of `step_count`; checkpoints fall on epochs' ends unless settings say otherwise, and
// on the last step always.
due_work due_after(const job_settings& settings, std::int64_t step, std::int64_t steps_per_epoch,
                   std::int64_t step_count);

// The root of all squares, added in rank and layout order.
double global_norm(std::span<const outcome> norms_in_rank_order);
// min(1, clip / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_; 1 when clipping is off.
double clip_scale(double norm, double clip_norm);

// Losses of slots, added in slot order.
struct step_loss {
  double sum = 0.0;
  std::int64_t counted = 0;
  std::int64_t correct = 0;
  void add(std::span<const slot_loss> losses);
  double mean() const { return counted > 0 ? sum / static_cast<double>(counted) : 0.0; }
  double accuracy() const {
    return counted > 0 ? static_cast<double>(correct) / static_cast<double>(counted) : 0.0;
  }
};

// How long a step takes, smoothed; seconds.
class step_clock {
 public:
  void add(double step_seconds);
  double left(std::int64_t steps) const { return smoothed_ * static_cast<double>(steps); }

 private:
  double smoothed_ = 0.0;
};

// The devices a job can use: the largest power of two that neither exceeds those there are nor the
// slots.
int device_count_for(int devices, int slots);

// "ft:{base}:tandem:{suffix}:{job}", and of one checkpoint "…:ckpt-step-N".
std::string version_name(std::string_view base, std::string_view suffix, std::string_view job);
std::string checkpoint_name(std::string_view version_name, std::int64_t step);

}  // namespace tandem::train
