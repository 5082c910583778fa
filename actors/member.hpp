// A member of a cluster that another process heads: finds the head that leads, is let into its
// roster, and starts its node actor, whose devices the head's coordinator lends from then on. When
// the head is lost its devices end, and it looks for one that leads, with growing pauses.
#pragma once

#include "actors/head_search.hpp"
#include "actors/keeper.hpp"
#include "actors/node.hpp"
#include "actors/roster.hpp"

#include <chrono>
#include <functional>
#include <string>

namespace tandem::actors {

// What became of it; told on the actor's thread.
struct member_news {
  enum class kind : std::uint8_t {
    joined,
    turned_away,  // the first try found nobody, or was refused: it has given up
    lost,         // the head is gone; it tries again
    let_go,       // its devices are idle, or it was in no cluster: it may end
  };
  kind what = kind::joined;
  std::string why;
  std::string head;                // joined, lost: at this address
  std::vector<std::string> heads;  // lost: where it looks for one
};

struct member_options {
  std::vector<std::string> heads;  // cluster addresses at which one may lead
  std::string name;                // of its node
  std::string address;             // its own, to be shown
  bool is_worker = false;
  node_options devices;
  // Made anew for each head, which workers dial; null: devices live in this process.
  std::function<worker_factory(const std::string& head)> workers_for;
  std::chrono::milliseconds answer_within{3000};
  std::chrono::milliseconds first_pause{100};
  std::chrono::milliseconds pause_max{5000};
  // Once it was in, and where several heads may lead: those that fall silent hold nobody up.
  std::chrono::milliseconds follow_within{1000};
  std::function<void(const member_news&)> tell;
};

// member to itself.
struct try_to_join {};
// process to member: give the devices back, then say let_go.
struct leave_now {};

struct member_state {
  struct candidate {
    std::string address;
    roster_actor roster;
  };
  member_options options;
  head_search heads;
  std::vector<candidate> found;  // of this round, not asked yet
  std::size_t unanswered = 0;    // of this round
  bool asking = false;
  std::vector<std::pair<std::string, std::string>> refusals;  // of this round
  std::string head;                                           // where it is in, or was last
  std::string store;                                          // which that one leads
  std::int64_t epoch = 0;
  roster_actor roster;  // while it is in
  caf::actor keeper;
  node_actor node;
  caf::actor_addr ending;  // the node actor of a head that was lost
  bool was_in = false;
  bool is_leaving = false;
  std::uint64_t tries = 0;  // answers to older ones are void
  std::chrono::milliseconds pause{0};

  static inline const char* name = "member";
};

caf::behavior member(caf::stateful_actor<member_state>* self, member_options options);

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, try_to_join&) {
  return f(caf::meta::type_name("try_to_join"));
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, leave_now&) {
  return f(caf::meta::type_name("leave_now"));
}

}  // namespace tandem::actors
