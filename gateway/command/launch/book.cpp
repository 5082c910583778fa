#include "gateway/command/launch/book.hpp"

#include "gateway/command/launch/ssh_plan.hpp"
#include "kernels/ensure.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::gateway::command {
namespace {

using namespace std::chrono_literals;

constexpr auto beyond_draining = 10s;

std::string_view word(std::string_view line, std::size_t number) {
  for (; number > 0; --number) {
    const auto space = line.find(' ');
    if (space == std::string_view::npos) return {};
    line.remove_prefix(space + 1);
  }
  return line.substr(0, line.find(' '));
}

std::string_view plural(int count) { return count == 1 ? "" : "s"; }

}  // namespace

const char* name_of(launched_node::state now) {
  switch (now) {
    case launched_node::state::absent:
      return "absent";
    case launched_node::state::starting:
      return "starting";
    case launched_node::state::up:
      return "up";
    case launched_node::state::ending:
      return "ending";
    case launched_node::state::resting:
      return "resting";
    case launched_node::state::down:
      return "down";
  }
  return "absent";
}

launch_book::launch_book(const std::vector<std::string>& names, bool has_spares,
                         std::chrono::milliseconds drain_timeout)
    : has_spares_(has_spares),
      patience_(2 * drain_timeout + beyond_draining) {  // requests, and a job's step
  ensure(!names.empty(), "a cluster without a head");
  for (const auto& name : names) {
    nodes_.emplace_back();
    nodes_.back().name = name;
    nodes_.back().pace = restart_pace(restarts_max);
  }
}

void launch_book::want(int count) {
  wanted_ = std::clamp(count, 0, static_cast<int>(nodes_.size()));
  for (auto& node : nodes_) {
    if (node.now != state::down) continue;
    node.now = state::absent;
    node.pace = restart_pace(restarts_max);
  }
}

void launch_book::knew(std::string cluster_address, std::string http_address) {
  nodes_.front().ever_up = !http_address.empty();
  cluster_address_ = std::move(cluster_address);
  http_address_ = std::move(http_address);
}

void launch_book::was_elsewhere(std::size_t node, std::string process) {
  nodes_[node].before = std::move(process);
}

void launch_book::found(std::size_t node, launch_time now) {
  nodes_[node].now = state::starting;
  nodes_[node].since = now;
}

void launch_book::say(std::size_t node, std::string words) {
  news_.push_back(fmt::format("{}: {}", nodes_[node].name, words));
}

void launch_book::head_said(std::string_view line, launch_time) {
  auto& head = nodes_.front();
  if (line.starts_with("cluster ")) {
    cluster_address_ = word(line, 1);
  } else if (line.starts_with("ready ")) {
    http_address_ = word(line, 1);
    head.ever_up = true;
    if (head.now == state::starting) head.now = state::up;
    say(0, fmt::format("{}; nodes join at {}", line, cluster_address_));
  } else if (line.starts_with("standby: ") || line.starts_with("leads ")) {
    say(0, std::string(line));
  }
}

void launch_book::heard(std::size_t index, std::string_view line, launch_time now) {
  auto& node = nodes_[index];
  if (line.starts_with("tandem: "))
    node.last_complaint = line.substr(8);
  else if (line.starts_with("srun: error: "))
    node.last_complaint = line;
  else if (auto complaint = ssh_complaint(line); !complaint.empty())
    node.last_complaint = std::move(complaint);
  if (line.starts_with("process ")) node.elsewhere = word(line, 1);
  if (index == 0) return head_said(line, now);
  if (line.starts_with("joined ")) {
    node.ever_up = true;
    if (node.now == state::starting) node.now = state::up;
    say(index, std::string(line));
  } else if (line.starts_with("lost ")) {
    if (node.now == state::up) node.now = state::starting;
    if (wanted_ > 0) say(index, std::string(line));
  } else if (line.starts_with("left ")) {
    node.said_left = true;
    say(index, std::string(line));
  }
}

void launch_book::died(std::size_t index, const process_end& how, launch_time now) {
  auto& node = nodes_[index];
  const std::string why = node.last_complaint.empty() ? how.words : node.last_complaint;
  // Nobody was ever let in: trying again changes nothing, unless the head was away.
  const bool is_refused =
      !node.ever_up && how.status > 0 && (index == 0 || nodes_.front().now == state::up);
  const auto pause = is_refused ? std::nullopt : node.pace.died(now - node.since);
  if (!pause) {
    node.now = state::down;
    node.why =
        is_refused ? why : fmt::format("died {} times in a row: {}", node.pace.restarts() + 1, why);
    return say(index, fmt::format("stays down: {}", node.why));
  }
  node.now = state::resting;
  node.due = now + *pause;
  say(index, fmt::format("{}; starting it again in {} ms ({} of {})", why, pause->count(),
                         node.pace.restarts(), restarts_max));
}

void launch_book::ended(std::size_t index, const process_end& how, launch_time now) {
  auto& node = nodes_[index];
  const bool meant = node.now == state::ending;
  const bool by_hand = !meant && index > 0 && node.said_left;
  if (!meant && !by_hand) return died(index, how, now);
  node.now = state::absent;
  node.pace = restart_pace(restarts_max);
  if (by_hand) {
    node.now = state::down;
    node.why = "drained by hand";
    --wanted_;
    say(index, fmt::format("ended, as it was drained by hand: {} node{} wanted from now on",
                           wanted_, plural(wanted_)));
  } else {
    say(index, how.status > 0 || how.status == -1 ? "ended: " + how.words : "ended");
  }
}

bool launch_book::runs(const launched_node& node) const {
  return node.now == state::starting || node.now == state::up || node.now == state::ending;
}

// The head, then whoever is here, then who could come, each in order.
std::vector<bool> launch_book::chosen() const {
  std::vector<bool> in(nodes_.size(), false);
  if (nodes_.front().now == state::down) return in;
  int left = wanted_;
  const auto take = [&](auto&& fits) {
    for (std::size_t n = 0; n < nodes_.size() && left > 0; ++n)
      if (!in[n] && fits(n)) {
        in[n] = true;
        --left;
      }
  };
  take([](std::size_t n) { return n == 0; });
  take([&](std::size_t n) {
    const auto now = nodes_[n].now;
    return now == state::starting || now == state::up || now == state::resting;
  });
  take([&](std::size_t n) { return !has_spares_ || nodes_[n].now != state::down; });
  return in;
}

void launch_book::order_end(std::size_t index, launch_time now, std::vector<launch_order>& orders) {
  auto& node = nodes_[index];
  if (node.now == state::resting) node.now = state::absent;
  if (!runs(node)) return;
  if (node.now != state::ending) {
    node.now = state::ending;
    node.due = now + patience_;
  }
  if (!std::exchange(node.asked, true)) {
    orders.push_back({launch_order::kind::ask_to_end, index});
  } else if (now >= node.due) {
    node.due = launch_time::max();
    say(index, "did not end: killed");
    orders.push_back({launch_order::kind::kill, index});
  }
}

std::vector<launch_order> launch_book::due(launch_time now) {
  std::vector<launch_order> orders;
  const auto in = chosen();
  for (std::size_t n = 0; n < nodes_.size(); ++n) {
    auto& node = nodes_[n];
    // One that was asked to end does, whatever is wanted by now; then it starts again.
    if (node.now == state::ending || !in[n]) {
      const bool head_ends_first = n > 0 && runs(nodes_.front()) && wanted_ == 0 && !node.asked;
      if (!head_ends_first) order_end(n, now, orders);
      continue;
    }
    const bool may_start =
        node.now == state::absent || (node.now == state::resting && now >= node.due);
    if (!may_start || (n > 0 && nodes_.front().now != state::up)) continue;
    launched_node fresh;
    fresh.name = std::move(node.name);
    fresh.before = node.elsewhere.empty() ? node.before : node.elsewhere;
    fresh.ever_up = node.ever_up;
    fresh.pace = node.pace;
    fresh.now = state::starting;
    fresh.since = now;
    node = std::move(fresh);
    orders.push_back({launch_order::kind::start, n});
  }
  return orders;
}

void launch_book::hurry(launch_time now) {
  for (auto& node : nodes_)
    if (runs(node) && node.due != launch_time::max()) {
      node.now = state::ending;
      node.asked = true;
      node.due = now;
    }
}

int launch_book::up() const {
  return static_cast<int>(
      std::ranges::count(nodes_, launched_node::state::up, &launched_node::now));
}

bool launch_book::settled() const {
  const auto in = chosen();
  for (std::size_t n = 0; n < nodes_.size(); ++n)
    if (in[n] ? nodes_[n].now != state::up && nodes_[n].now != state::down : runs(nodes_[n]))
      return false;
  return true;
}

bool launch_book::over() const {
  return (wanted_ == 0 || nodes_.front().now == state::down) &&
         std::ranges::none_of(nodes_, [this](const auto& node) { return runs(node); });
}

std::vector<std::string> launch_book::take_news() { return std::exchange(news_, {}); }

}  // namespace tandem::gateway::command
