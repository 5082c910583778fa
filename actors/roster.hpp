// The roster: which nodes are in the cluster. Nodes of other machines ask it to be let in and to be
// let go; worker processes of a node learn from it whom to speak to. Published as "roster".
#pragma once

#include "actors/lease_board.hpp"
#include "actors/messages.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace tandem::actors {

inline constexpr const char* roster_name = "roster";  // as the link publishes it

// member to roster: let this node in, with these devices; it is in until `member` ends. Refused:
// the name or a device's is taken (conflict), or it has seen a later head than this one. A worker
// belongs to a node that is in already.
struct join_cluster {
  std::string node;  // its name
  std::string address;
  std::vector<std::string> devices;
  bool is_worker = false;
  std::uint64_t process = 0;  // of a worker: its id, by which its node knows it
  caf::actor member;          // takes let_go, heads_changed
  std::string store;          // of the last head it was in, and
  std::int64_t epoch = 0;     // its epoch
};
struct cluster_joined {
  caf::actor keeper;  // takes keep_told
  std::string store;  // that this head leads, and in which epoch; none: no other head can lead it
  std::int64_t epoch = 0;
  std::vector<std::string> heads;  // other addresses at which a head may lead
};
// the head to its roster, which tells its members: who stands by for it. Not sure of its lead, it
// lets nobody in.
struct heads_changed {
  bool sure = true;
  std::vector<std::string> others;
};
// whoever starts workers to roster: tell this node actor (worker_ended) when one falls silent,
// which its process's end does not show.
struct watch_workers {
  std::string node;
  caf::actor by;
};
// member to roster, and by hand: this node is to leave. Answered once its devices are idle.
struct leave_cluster {
  std::string node;
};
// roster to member: your devices are idle, end.
struct let_go {
  std::string why;
};
// http session to roster: the same by hand; `answer` is called once.
struct submit_drain {
  std::string node;
  std::function<void(result<void>)> answer;
};

using roster_actor =
    caf::typed_actor<caf::replies_to<join_cluster>::with<cluster_joined>,
                     caf::reacts_to<watch_workers>, caf::replies_to<leave_cluster>::with<void>,
                     caf::reacts_to<submit_drain>, caf::reacts_to<coordinator_changed>,
                     caf::reacts_to<heads_changed>>;

struct node_report {
  enum class state : std::uint8_t { up, draining, left };
  std::string node;
  std::string address;
  std::vector<std::string> devices;
  state now = state::up;
  bool is_head = false;
  std::int64_t since_ms = 0;  // Unix milliseconds
  std::string why;            // it left
};
const char* name_of(node_report::state now);

// What the roster shows any thread.
class node_board {
 public:
  void put(std::vector<node_report> nodes);
  std::vector<node_report> newest() const;

 private:
  mutable std::mutex mutex_;
  std::vector<node_report> nodes_;
};

struct roster_options {
  node_report head;
  caf::actor keeper;
  std::string store;  // whose lead may go to another head
  std::int64_t epoch = 0;
  std::shared_ptr<node_board> board;
  std::shared_ptr<lease_board> events;  // null: none are told
};

struct roster_state {
  struct member {
    node_report report;
    caf::actor actor;
    std::vector<std::function<void(result<void>)>> leaves;  // who waits for it
  };
  roster_options options;
  coordinator_actor coordinator;
  heads_changed heads;
  struct worker {
    std::string node;
    std::string device;
    std::uint64_t process = 0;
  };
  std::map<std::string, member> members;
  std::map<caf::actor_addr, worker> workers;   // by member
  std::map<std::string, caf::actor> watchers;  // by node
  std::vector<node_report> left;               // the newest of these last

  static inline const char* name = "roster";
};

roster_actor::behavior_type roster(roster_actor::stateful_pointer<roster_state> self,
                                   roster_options options, coordinator_actor coordinator);

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, join_cluster& x) {
  return f(caf::meta::type_name("join_cluster"), x.node, x.address, x.devices, x.is_worker,
           x.process, x.member, x.store, x.epoch);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, cluster_joined& x) {
  return f(caf::meta::type_name("cluster_joined"), x.keeper, x.store, x.epoch, x.heads);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, heads_changed& x) {
  return f(caf::meta::type_name("heads_changed"), x.sure, x.others);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, watch_workers& x) {
  return f(caf::meta::type_name("watch_workers"), x.node, x.by);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, leave_cluster& x) {
  return f(caf::meta::type_name("leave_cluster"), x.node);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, let_go& x) {
  return f(caf::meta::type_name("let_go"), x.why);
}

}  // namespace tandem::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(tandem::actors::submit_drain)
