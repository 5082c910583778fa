// The cluster that is simulated: the head with everything it has, and the machines whose devices it
// lends.
#pragma once

#include "actors/keeper.hpp"
#include "actors/lease_board.hpp"
#include "actors/train_desk.hpp"
#include "tests/sim/devices.hpp"
#include "tests/sim/memory_store.hpp"
#include "tests/sim/timeline.hpp"
#include "tests/sim/wire.hpp"
#include "tests/sim/world.hpp"

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace tandem::sim {

// A machine of the cluster. The head's own has no wire.
struct machine {
  std::vector<std::string> devices;
  std::unique_ptr<wire> connection;
  actors::node_actor node;
  bool connected = true;
};

class cluster {
 public:
  cluster(const knobs& how, timeline& time, std::shared_ptr<ground> on,
          std::shared_ptr<memory_store> store);

  // A device has the model.
  bool ready() const;
  const std::shared_ptr<actors::gateway_board>& board() const { return board_; }
  const actors::lease_board& leases() const { return *leases_; }
  const actors::gateway_actor& gateway() const { return gateway_; }
  const actors::train_desk_actor& desk() const { return desk_; }
  // Null while the keeper waits to start the next one.
  actors::coordinator_actor coordinator_now() const;

  std::deque<machine>& machines() { return machines_; }
  std::map<std::string, caf::actor> gpus() const;  // by name
  static std::map<std::string, caf::actor> gpus_of(const machine& on);

  void cut(machine& there);
  // It leaves with all it has, without a word; how many devices it had.
  int lose(machine& there);
  // A machine that was cut off is there again, or another one under its name.
  void join_again(machine& there);

 private:
  void start_head();
  void start_machines();
  void start_node(machine& on);
  void tell_keeper(machine& on);

  const knobs& how_;
  timeline& time_;
  std::shared_ptr<ground> on_;
  std::shared_ptr<memory_store> store_;
  std::shared_ptr<actors::gateway_board> board_ = std::make_shared<actors::gateway_board>();
  std::shared_ptr<actors::lease_board> leases_ = std::make_shared<actors::lease_board>();
  caf::actor keeper_;
  actors::serve_coordinator_actor serve_;
  actors::gateway_actor gateway_;
  std::deque<machine> machines_;
  actors::train_desk_actor desk_;
};

}  // namespace tandem::sim
