// A job that trains, on the screen: on a terminal a bar that is redrawn, elsewhere plain lines, few
// enough to read. All it knows comes from the job's events, time included.
#pragma once

#include "gateway/command/jobs.hpp"

#include <cstdint>
#include <deque>
#include <iosfwd>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace tandem::gateway::command {

// How long the rest takes, from when the last steps ended. Events know whole seconds only, so the
// pace is told once it is known to a few parts in a hundred or the job is older than that.
class step_pace {
 public:
  void add(std::int64_t created_at, std::int64_t step);
  std::optional<std::int64_t> seconds_left(std::int64_t step_count) const;

 private:
  std::deque<std::pair<std::int64_t, std::int64_t>> seen_;  // when, which step; the last few
};

class training_line {
 public:
  training_line(std::ostream& out, bool terminal, std::size_t columns)
      : out_(out), terminal_(terminal), columns_(columns) {}
  ~training_line();  // leaves the cursor on a line of its own
  training_line(const training_line&) = delete;
  training_line& operator=(const training_line&) = delete;

  void show(const job_event& event);
  // A line of its own, the bar below it.
  void say(std::string_view words);

 private:
  void show_metrics(const job_event& event);
  bool worth_a_line(const job_event& event, std::int64_t step, std::int64_t step_count) const;
  std::vector<std::string> numbers(const text::value& data, std::int64_t step_count) const;
  void draw();
  void end_line();

  std::ostream& out_;
  bool terminal_;
  std::size_t columns_;
  step_pace pace_;
  std::string bar_;
  bool drawn_ = false;
  std::optional<double> valid_loss_;
  std::int64_t last_step_ = -1;
  std::int64_t last_line_at_ = 0;
  std::int64_t last_line_step_ = -1;
};

}  // namespace tandem::gateway::command
