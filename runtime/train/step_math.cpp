#include "runtime/train/step_math.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tandem::train {

due_work due_after(const job_settings& settings, std::int64_t step, std::int64_t steps_per_epoch,
                   std::int64_t step_count) {
  due_work due;
  const auto every = settings.checkpoint_every_steps > 0
                         ? settings.checkpoint_every_steps
                         : std::max<std::int64_t>(steps_per_epoch, 1);
  due.last = step >= step_count;
  due.checkpoint = due.last || step % every == 0;
  due.publish = due.checkpoint ||
                (settings.publish_every_steps > 0 && step % settings.publish_every_steps == 0);
  return due;
}

double global_norm(std::span<const outcome> norms_in_rank_order) {
  double squares = 0.0;
  for (const auto& shard : norms_in_rank_order)
    for (const double tensor : shard.squares) squares += tensor;
  return std::sqrt(squares);
}

double clip_scale(double norm, double clip_norm) {
  constexpr double epsilon = 1e-6;
  if (clip_norm <= 0.0) return 1.0;
  return std::min(1.0, clip_norm / (norm + epsilon));
}

void step_loss::add(std::span<const slot_loss> losses) {
  for (const auto& slot : losses) {
    sum += slot.loss_sum;
    counted += slot.counted;
    correct += slot.correct;
  }
}

void step_clock::add(double step_seconds) {
  constexpr double newest_share = 0.2;
  smoothed_ =
      smoothed_ == 0.0 ? step_seconds : smoothed_ + newest_share * (step_seconds - smoothed_);
}

int device_count_for(int devices, int slots) {
  int count = 1;
  while (count * 2 <= std::min(devices, slots)) count *= 2;
  return count;
}

std::string version_name(std::string_view base, std::string_view suffix, std::string_view job) {
  return fmt::format("ft:{}:tandem:{}:{}", base, suffix, job);
}

std::string checkpoint_name(std::string_view version_name, std::int64_t step) {
  return fmt::format("{}:ckpt-step-{}", version_name, step);
}

}  // namespace tandem::train
