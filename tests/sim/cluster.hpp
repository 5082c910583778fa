// The cluster that is simulated: heads over one database, of which one leads, and machines that
// look for it and lend it their devices, as actors/member.cpp does.
#pragma once

#include "tests/sim/head.hpp"
#include "tests/sim/wire.hpp"

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace tandem::sim {

struct machine {
  std::string name;
  std::vector<std::string> devices;
  head* hosts = nullptr;  // null: none can run here
  bool joins = false;     // it runs a node that joins heads elsewhere
  actors::node_actor node;
  actors::node_actor ending;  // the one before
  std::unique_ptr<wire> connection;
  std::set<const head*> cut_from;

  // As member_state has it.
  head* at = nullptr;  // the head that it asks or is in
  bool is_in = false;
  caf::actor member;      // what the roster watches
  std::int64_t lead = 0;  // of the last head it was in
  std::int64_t kept = 0;  // devices of this lead live on through a short cut; 0: none do
  bool leaves = false;    // as soon as its devices are idle
  std::uint64_t tries = 0;
  std::chrono::milliseconds pause{0};
};

class cluster {
 public:
  cluster(std::uint64_t seed, const knobs& how, timeline& time, std::shared_ptr<ground> on,
          std::shared_ptr<memory_database> database);

  // Told of every head that ends, and of every change of a job.
  void listen(std::function<void(const head&)> head_gone,
              std::function<void(const store::job_record&)> job_changed);

  std::deque<machine>& machines() { return machines_; }
  std::deque<head>& heads() { return heads_; }
  const std::deque<head>& heads() const { return heads_; }
  const std::vector<std::string>& devices() const { return devices_; }
  std::map<std::string, caf::actor> gpus() const;  // by name

  // That clients find: those that take requests. Two do while one does not know yet.
  std::vector<head*> open_heads();

  // The network between the two is gone until `heal`. Devices either end, as when the machine
  // notices, or live on if it is over before that.
  void cut(machine& there, head& from, bool devices_live_on);
  void heal(machine& there, head& from);
  // It leaves with all it has, without a word; how many devices it had.
  int lose(machine& there);
  void join(machine& there);
  // The process of a head ends; `heard`: the database knows at once. Its machine comes back: with a
  // head that stands by, or first as an ordinary one, if there is another head.
  void kill(head& which, bool heard);
  int head_losses() const { return head_losses_; }

 private:
  void start_again(machine& home);
  void stand_by(machine& home);
  void drain(machine& there);
  void look_for_head(machine& there);
  void look_later(machine& there);
  void ask_next(machine& there, std::vector<head*> rest);
  void came_in(machine& there, const actors::cluster_joined& answer);
  void leave(machine& there, bool devices_live_on);
  void end_node(machine& there);

  timeline& time_;
  std::shared_ptr<ground> on_;
  random_stream chance_;
  std::deque<machine> machines_;
  std::deque<head> heads_;
  std::vector<std::string> devices_;
  std::function<void(const head&)> head_gone_;
  std::function<void(const store::job_record&)> job_changed_;
  int head_losses_ = 0;
};

}  // namespace tandem::sim
