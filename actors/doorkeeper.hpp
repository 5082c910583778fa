// The doorkeeper of the head: tells the nodes that joined whether they are to open an HTTP address
// ("a door") of their own, and all that one must know. Published as "doorkeeper" once the head
// serves. Asked again and again: keys change, and so does who serves.
#pragma once

#include "actors/messages.hpp"

#include <caf/all.hpp>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace tandem::actors {

inline constexpr const char* doorkeeper_name = "doorkeeper";  // as the link publishes it

// Who may come in: hashes (SHA-256, 32 bytes) of keys, as the head holds them.
struct door_keys {
  bool are_needed = false;
  std::vector<std::string> hashes;
  bool operator==(const door_keys&) const = default;
};

struct door_terms {
  bool is_wanted = false;  // server.gateways of the head
  serve_coordinator_actor serve_coordinator;
  // Where the head's own door is; host empty: where it was joined.
  std::string http_host;
  int http_port = 0;
  std::string machine;      // that it is the loopback of, where it is one
  std::string certificate;  // PEM, that it shows there; empty: it speaks plain HTTP
  // Of the base model.
  std::string model_id;
  std::string model_path;
  std::string chat_template;  // in place of the model's own; empty: that
  std::int64_t created = 0;   // Unix seconds
  int inside_max = 0;         // requests in one door at a time
  door_keys api_keys;
  door_keys admin_keys;
};

// door to doorkeeper: what holds now?
struct ask_terms {};

using doorkeeper_actor = caf::typed_actor<caf::replies_to<ask_terms>::with<door_terms>,
                                          caf::reacts_to<serve_coordinator_changed>>;

struct doorkeeper_state {
  std::function<door_terms()> terms;
  serve_coordinator_actor serve_coordinator;

  static inline const char* name = "doorkeeper";
};

// `terms` is called on the actor's thread; who serves is filled in here.
doorkeeper_actor::behavior_type doorkeeper(
    doorkeeper_actor::stateful_pointer<doorkeeper_state> self, std::function<door_terms()> terms,
    serve_coordinator_actor serve_coordinator);

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, door_keys& x) {
  return f(caf::meta::type_name("door_keys"), x.are_needed, x.hashes);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, door_terms& x) {
  return f(caf::meta::type_name("door_terms"), x.is_wanted, x.serve_coordinator, x.http_host,
           x.http_port, x.machine, x.certificate, x.model_id, x.model_path, x.chat_template,
           x.created, x.inside_max, x.api_keys, x.admin_keys);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, ask_terms&) {
  return f(caf::meta::type_name("ask_terms"));
}

}  // namespace tandem::actors
