// Where actors ask the link: which actor a node has published under a name, and who comes and goes.
#pragma once

#include "runtime/result.hpp"

#include <caf/all.hpp>

#include <map>
#include <string>
#include <vector>

namespace tandem::actors {

class link;

// anyone to the desk: the actor that the node at this address has published, once it answers these
// messages. Answered with it, or with an error of ours that says why not.
struct resolve_actor {
  std::string address;
  std::string name;
  std::vector<std::string> message_types;
};
// anyone to the desk: from now on tell `subscriber` who comes and goes; first, who is there. It
// ends with the subscriber.
struct watch_peers {
  caf::actor subscriber;
};
// the desk to its subscribers.
struct peer_joined {
  std::string address;
  bool operator==(const peer_joined&) const = default;
};
struct peer_gone {
  std::string address;
  std::string reason;
  bool operator==(const peer_gone&) const = default;
};
// the link to the desk: the answer to a query.
struct query_answered {
  std::uint64_t query = 0;
  caf::strong_actor_ptr found;
  std::vector<error> failure;  // one when there is no such actor
};

using link_desk_actor =
    caf::typed_actor<caf::replies_to<resolve_actor>::with<caf::strong_actor_ptr>,
                     caf::reacts_to<watch_peers>, caf::reacts_to<peer_joined>,
                     caf::reacts_to<peer_gone>, caf::reacts_to<query_answered>>;

struct link_desk_state {
  std::uint64_t last_query = 0;
  std::map<std::uint64_t, caf::typed_response_promise<caf::strong_actor_ptr>> waiting;
  std::vector<std::string> there;
  std::vector<caf::actor> subscribers;
};

link_desk_actor::behavior_type link_desk(link_desk_actor::stateful_pointer<link_desk_state> self,
                                         link* through);

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, resolve_actor& x) {
  return f(caf::meta::type_name("resolve_actor"), x.address, x.name, x.message_types);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, watch_peers& x) {
  return f(caf::meta::type_name("watch_peers"), x.subscriber);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, peer_joined& x) {
  return f(caf::meta::type_name("peer_joined"), x.address);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, peer_gone& x) {
  return f(caf::meta::type_name("peer_gone"), x.address, x.reason);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, query_answered& x) {
  return f(caf::meta::type_name("query_answered"), x.query, x.found);
}

}  // namespace tandem::actors
