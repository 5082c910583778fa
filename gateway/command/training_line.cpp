#include "gateway/command/training_line.hpp"

#include "gateway/command/json_view.hpp"
#include "gateway/command/print.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <ostream>

namespace tandem::gateway::command {
namespace {

constexpr std::size_t bar_width = 20;
constexpr std::size_t pace_events = 64;
constexpr std::int64_t pace_seconds_min = 3;
// Plain lines: twenty for a job, and one a minute for a slow one.
constexpr std::int64_t plain_lines = 20;
constexpr std::int64_t plain_line_seconds = 60;

std::string bar_of(std::int64_t step, std::int64_t step_count) {
  if (step_count <= 0) return {};
  const auto filled = static_cast<std::size_t>(std::clamp<std::int64_t>(
      static_cast<std::int64_t>(bar_width) * step / step_count, 0, bar_width));
  return fmt::format("[{}{}]", std::string(filled, '='), std::string(bar_width - filled, ' '));
}

}  // namespace

void step_pace::add(std::int64_t created_at, std::int64_t step) {
  // A job taken up again from a checkpoint repeats steps: what was before tells nothing.
  if (!seen_.empty() && (step <= seen_.back().second || created_at < seen_.back().first)) {
    seen_.clear();
  }
  seen_.emplace_back(created_at, step);
  if (seen_.size() > pace_events) seen_.pop_front();
}

std::optional<std::int64_t> step_pace::seconds_left(std::int64_t step_count) const {
  if (seen_.size() < 2) return std::nullopt;
  const std::int64_t seconds = seen_.back().first - seen_.front().first;
  const std::int64_t steps = seen_.back().second - seen_.front().second;
  const std::int64_t left = step_count - seen_.back().second;
  if (left < 0 || (seconds < pace_seconds_min)) return std::nullopt;
  return (left * seconds + steps - 1) / steps;
}

training_line::~training_line() { end_line(); }

void training_line::show(const job_event& event) {
  if (event.is_metrics) {
    show_metrics(event);
  } else {
    say(event.level == "warn" || event.level == "error" ? event.level + ": " + event.message
                                                        : event.message);
  }
}

void training_line::say(std::string_view line) {
  if (drawn_) out_ << "\r\x1b[K";
  for (const char c : line) out_ << (static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c);
  out_ << '\n' << std::flush;
  if (drawn_) draw();
}

std::vector<std::string> training_line::numbers(const text::value& data,
                                                std::int64_t step_count) const {
  std::vector<std::string> parts;
  if (const auto loss = number(member(data, "train_loss"))) {
    parts.push_back(fmt::format("loss {:.4f}", *loss));
  }
  if (valid_loss_) parts.push_back(fmt::format("valid {:.4f}", *valid_loss_));
  if (const auto rate = number(member(data, "tokens_per_second"))) {
    parts.push_back(fmt::format("{:.0f} tokens/s", *rate));
  }
  if (const auto left = pace_.seconds_left(step_count); left && *left > 0) {
    parts.push_back(human_duration(*left) + " left");
  }
  return parts;
}

bool training_line::worth_a_line(const job_event& event, std::int64_t step,
                                 std::int64_t step_count) const {
  if (last_line_step_ < 0 || step == step_count || step <= last_step_) return true;
  if (number(member(event.data, "valid_loss"))) return true;
  const auto share = [&](std::int64_t n) {
    return n * plain_lines / std::max<std::int64_t>(step_count, 1);
  };
  return share(step) != share(last_line_step_) ||
         event.created_at - last_line_at_ >= plain_line_seconds;
}

void training_line::show_metrics(const job_event& event) {
  const std::int64_t step = integer_or(member(event.data, "step"), 0);
  const std::int64_t step_count = integer_or(member(event.data, "steps"), 0);
  if (const auto loss = number(member(event.data, "valid_loss"))) valid_loss_ = loss;
  pace_.add(event.created_at, step);
  const bool worth = worth_a_line(event, step, step_count);
  last_step_ = step;
  const std::string place =
      step_count > 0 ? fmt::format("{}/{}", step, step_count) : std::to_string(step);
  if (!terminal_ && !worth) return;
  bar_ =
      terminal_ ? bar_of(step, step_count) + (step_count > 0 ? " " : "") + place : "step " + place;
  for (const std::string& part : numbers(event.data, step_count)) {
    // What does not fit is left out, the less wanted first to go: it stands last.
    if (terminal_ && bar_.size() + 2 + part.size() >= columns_) break;
    bar_ += "  " + part;
  }
  if (terminal_) {
    draw();
    return;
  }
  last_line_step_ = step;
  last_line_at_ = event.created_at;
  out_ << bar_ << std::endl;
}

void training_line::draw() {
  out_ << "\r\x1b[K" << bar_ << std::flush;
  drawn_ = true;
}

void training_line::end_line() {
  if (drawn_) out_ << std::endl;
  drawn_ = false;
}

}  // namespace tandem::gateway::command
