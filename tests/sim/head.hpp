// A head process of a simulated cluster. It stands by for the lead as runtime/store/leader_seat.cpp
// does, by the same rules (leadership.hpp), and once it leads it has what gateway/platform.cpp
// makes.
#pragma once

#include "actors/keeper.hpp"
#include "actors/lease_board.hpp"
#include "actors/roster.hpp"
#include "actors/train_desk.hpp"
#include "tests/sim/devices.hpp"
#include "tests/sim/memory_store.hpp"
#include "tests/sim/timeline.hpp"
#include "tests/sim/world.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace tandem::sim {

// What an actor knows, by the actor itself; null: it is gone.
template <class Pointer, class Handle>
decltype(&Pointer()->state) state_of(const Handle& who) {
  const auto strong = caf::actor_cast<caf::strong_actor_ptr>(who);
  if (!strong) return nullptr;
  auto* self = dynamic_cast<Pointer>(caf::actor_cast<caf::abstract_actor*>(strong));
  return self && !self->getf(caf::abstract_actor::is_terminated_flag) ? &self->state : nullptr;
}

// The node actor of a machine with these devices.
actors::node_actor start_node(timeline& time, const std::shared_ptr<ground>& on,
                              const std::vector<std::string>& devices);
std::map<std::string, caf::actor> gpus_of(const actors::node_actor& node);  // by name
// A process with this node actor is no more: nothing of it runs again.
void kill_node(actors::node_actor& node);

class head {
 public:
  struct surroundings {
    timeline& time;
    std::shared_ptr<ground> on;
    std::shared_ptr<memory_database> database;
    const knobs& how;
    // It ends by itself, because another leads.
    std::function<void(head&)> ends;
    // This job's record has changed.
    std::function<void(const store::job_record&)> job_changed;
  };
  head(std::string name, std::vector<std::string> devices, std::uint64_t seed, surroundings around);
  ~head();
  head(const head&) = delete;
  head& operator=(const head&) = delete;

  const std::string& name() const { return name_; }  // of its machine's node
  bool is_up() const { return up_; }
  // Its actors are there, whoever leads by now.
  bool has_led() const { return static_cast<bool>(keeper_); }
  bool takes_requests() const { return static_cast<bool>(desk_); }
  std::int64_t lead() const { return access_ ? access_->lead : 0; }

  void start();  // it stands by
  // Its process ends without a word, and its devices with it. `heard`: so does its session.
  void kill(bool heard);
  void cut_from_store(bool cut);
  // The database ends its session, and the lock with it: it learns so when it looks next.
  void lose_session();

  const std::shared_ptr<memory_store>& store() const { return store_; }
  const std::shared_ptr<actors::gateway_board>& board() const { return board_; }
  const std::shared_ptr<actors::lease_board>& leases() const { return leases_; }
  const caf::actor& keeper() const { return keeper_; }
  const actors::gateway_actor& gateway() const { return gateway_; }
  const actors::roster_actor& roster() const { return roster_; }
  const actors::node_actor& node() const { return node_; }
  // Null while the keeper waits to start the next one.
  actors::coordinator_actor coordinator_now() const;

 private:
  void later(std::chrono::nanoseconds time, void (head::*what)());
  store::leader_look look();
  bool sure();
  void stand_by();
  void count_up();
  void keep();
  void open();
  void open_desk();

  std::string name_;
  std::vector<std::string> devices_;
  random_stream chance_;
  surroundings around_;

  bool up_ = false;
  std::uint64_t life_ = 0;
  std::uint64_t session_ = 0;
  int failures_ = 0;
  bool told_sure_ = true;
  clock_time sure_at_{};
  bool cut_ = false;
  std::shared_ptr<database_access> access_;

  std::shared_ptr<memory_store> store_;
  std::shared_ptr<actors::gateway_board> board_;
  std::shared_ptr<actors::lease_board> leases_;
  caf::actor keeper_;
  actors::coordinator_actor first_;
  actors::serve_coordinator_actor serve_;
  actors::gateway_actor gateway_;
  actors::roster_actor roster_;
  actors::node_actor node_;
  actors::train_desk_actor desk_;
};

}  // namespace tandem::sim
