// The book of a launched cluster: in which state each node is, and what is to be done next. Pure:
// what nodes said and how they ended goes in with the time, orders and lines for people come out.
// Node 0 is the head: the others start once it is up, and when all is to end it ends first, while
// the others still compute what it drains.
#pragma once

#include "runtime/restart_pace.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::gateway::command {

using launch_time = std::chrono::steady_clock::time_point;

struct launched_node {
  enum class state : std::uint8_t {
    absent,    // not wanted, or ended
    starting,  // its process runs
    up,        // it serves (the head), or has joined
    ending,    // asked to end
    resting,   // it died, and starts again
    down,      // it stays dead until the next order
  };
  std::string name;
  state now = state::absent;
  bool ever_up = false;    // in any life
  bool said_left = false;  // it was drained, by us or by hand
  bool asked = false;      // the order to end is out
  restart_pace pace{0};
  launch_time since{};
  launch_time due{};           // resting: when it starts; ending: when it is killed
  std::string elsewhere;       // its process on another machine
  std::string before;          // the one before that
  std::string last_complaint;  // "tandem: …", or what ssh said
  std::string why;             // it is down
};
const char* name_of(launched_node::state now);

struct launch_order {
  enum class kind : std::uint8_t { start, ask_to_end, kill };
  kind what = kind::start;
  std::size_t node = 0;
  bool operator==(const launch_order&) const = default;
};

// How a process ended.
struct process_end {
  int status = -1;    // -1: a signal's, or not known
  std::string words;  // "killed by signal 9 (Killed)"
};

class launch_book {
 public:
  static constexpr int restarts_max = 5;

  // `has_spares`: another node takes the place of one that stays down.
  launch_book(const std::vector<std::string>& names, bool has_spares,
              std::chrono::milliseconds drain_timeout);

  // How many are wanted, the head among them; 0: all end. Nodes that stay down are tried again.
  void want(int count);
  int wanted() const { return wanted_; }
  // Where the head was, as a launcher before us knew it: it comes back there.
  void knew(std::string cluster_address, std::string http_address);
  // What it was elsewhere when it was last heard of; it may be there still.
  void was_elsewhere(std::size_t node, std::string process);
  // A process of this node runs already, from a launcher before us.
  void found(std::size_t node, launch_time now);
  void heard(std::size_t node, std::string_view line, launch_time now);
  void ended(std::size_t node, const process_end& how, launch_time now);
  // The orders of this moment. Each is given once.
  std::vector<launch_order> due(launch_time now);
  // Whoever does not end at once is killed.
  void hurry(launch_time now);

  const std::vector<launched_node>& nodes() const { return nodes_; }
  const std::string& cluster_address() const { return cluster_address_; }
  const std::string& http_address() const { return http_address_; }
  int up() const;
  // All that are wanted are up, or stay down.
  bool settled() const;
  // The head is not to be had, or nobody is wanted, and nothing runs any more.
  bool over() const;
  // What a person wants to know, since the last call.
  std::vector<std::string> take_news();

 private:
  using state = launched_node::state;

  void say(std::size_t node, std::string words);
  void head_said(std::string_view line, launch_time now);
  void died(std::size_t node, const process_end& how, launch_time now);
  bool runs(const launched_node& node) const;
  std::vector<bool> chosen() const;
  void order_end(std::size_t node, launch_time now, std::vector<launch_order>& orders);

  std::vector<launched_node> nodes_;
  bool has_spares_;
  std::chrono::milliseconds patience_;  // from the order to end to the kill
  int wanted_ = 0;
  std::string cluster_address_;
  std::string http_address_;
  std::vector<std::string> news_;
};

}  // namespace tandem::gateway::command
