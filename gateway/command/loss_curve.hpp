// A job's losses by step, and the axes they are drawn on: what the terminal's and the PNG's picture
// share.
#pragma once

#include "gateway/command/jobs.hpp"

#include <string>
#include <vector>

namespace tandem::gateway::command {

struct loss_point {
  double step = 0;
  double loss = 0;
  bool operator==(const loss_point&) const = default;
};

struct loss_curve {
  std::vector<loss_point> train;
  std::vector<loss_point> valid;

  bool empty() const { return train.empty() && valid.empty(); }
};

// Of the events, oldest first. A job taken up again repeats steps: what it computes then counts.
loss_curve curve_from(const std::vector<job_event>& events);

// A range with round numbers in it: 1, 2 or 5 times a power of ten apart, at most `count_max` of
// them.
struct axis {
  double low = 0;
  double high = 1;
  std::vector<double> ticks;
  int decimals = 0;

  double share(double x) const;  // 0 at `low`, 1 at `high`
  std::string label(double tick) const;
};
// Whole numbers only, from the first step to the last.
axis step_axis(const loss_curve& curve, int count_max);
// A little wider than the losses, so that no curve lies on the frame.
axis loss_axis(const loss_curve& curve, int count_max);

}  // namespace tandem::gateway::command
