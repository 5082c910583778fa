// A door of a node that joined, as far as actors go: asks the head's doorkeeper what holds, tells
// the process, has the served model's files brought here, and brings the node's gateway actor
// together with whoever serves.
#pragma once

#include "actors/borrower.hpp"
#include "actors/doorkeeper.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>

namespace tandem::actors {

// process to door: this node is in a cluster with this head; it is in none.
struct head_found {
  std::string address;
};
struct head_lost {};
// door to itself.
struct ask_again {
  std::uint64_t number = 0;
};

struct door_news {
  std::string head;  // its address
  door_terms terms;
  std::optional<borrowed> model;  // none: its files are on their way
};

struct door_options {
  gateway_actor gateway;
  borrower_actor borrower;
  // Each time the doorkeeper has answered and when the model has come, on the actor's thread.
  std::function<void(door_news)> tell;
  std::chrono::milliseconds answer_within{3000};
  std::chrono::milliseconds first_pause{100};  // while there is no doorkeeper; grows up to
  std::chrono::milliseconds period{2000};      // that between two questions
  std::chrono::milliseconds model_patience{90'000};
};

struct door_state {
  door_options options;
  std::string head;  // empty: none
  doorkeeper_actor keeper;
  door_news news;
  // Whose model is here, or on its way.
  std::optional<std::pair<caf::node_id, std::string>> wanted;
  unsigned failures = 0;     // to bring it
  std::uint64_t number = 0;  // answers to older questions are void
  std::chrono::milliseconds pause{0};

  static inline const char* name = "door";
};

caf::behavior door(caf::stateful_actor<door_state>* self, door_options options);

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, head_found& x) {
  return f(caf::meta::type_name("head_found"), x.address);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, head_lost&) {
  return f(caf::meta::type_name("head_lost"));
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, ask_again& x) {
  return f(caf::meta::type_name("ask_again"), x.number);
}

}  // namespace tandem::actors
