#include "actors/link_desk.hpp"

#include "actors/link.hpp"
#include "actors/messages.hpp"

#include <algorithm>

namespace tandem::actors {

link_desk_actor::behavior_type link_desk(link_desk_actor::stateful_pointer<link_desk_state> self,
                                         link* through) {
  self->set_down_handler([self](const caf::down_msg& gone) {
    std::erase_if(self->state.subscribers,
                  [&](const caf::actor& one) { return one.address() == gone.source; });
  });
  const auto tell_all = [self](const auto& what) {
    for (const auto& one : self->state.subscribers) caf::anon_send(one, what);
  };
  return {
      [self, through](resolve_actor& wanted) {
        auto promise = self->make_response_promise<caf::strong_actor_ptr>();
        const auto query = ++self->state.last_query;
        self->state.waiting.emplace(query, promise);
        through->look_up(query, std::move(wanted));
        return promise;
      },
      [self](const watch_peers& who) {
        self->monitor(who.subscriber);
        self->state.subscribers.push_back(who.subscriber);
        for (const auto& one : self->state.there) caf::anon_send(who.subscriber, peer_joined{one});
      },
      [self, tell_all](const peer_joined& who) {
        self->state.there.push_back(who.address);
        tell_all(who);
      },
      [self, tell_all](const peer_gone& who) {
        std::erase(self->state.there, who.address);
        tell_all(who);
      },
      [self](query_answered& answer) {
        const auto found = self->state.waiting.find(answer.query);
        if (found == self->state.waiting.end()) return;
        auto promise = found->second;
        self->state.waiting.erase(found);
        if (answer.failure.empty())
          promise.deliver(answer.found);
        else
          promise.deliver(to_caf(answer.failure.front()));
      },
  };
}

}  // namespace tandem::actors
