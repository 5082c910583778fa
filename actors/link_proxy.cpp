#include "actors/link_proxy.hpp"

#include "actors/link.hpp"

#include <caf/detail/sync_request_bouncer.hpp>

namespace tandem::actors {

link_proxy::link_proxy(caf::actor_config& config, link& through, std::shared_ptr<remote_node> node)
    : caf::actor_proxy(config), through_(through), node_(std::move(node)), dead_(!node_) {}

void link_proxy::enqueue(caf::mailbox_element_ptr what, caf::execution_unit*) {
  if (!what) return;
  if (dead_.load()) {
    caf::detail::sync_request_bouncer{caf::make_error(caf::sec::request_receiver_down)}(*what);
    return;
  }
  through_.send(*this, std::move(what));
}

// Called with the mutexes of both actors held: the wire is told later.
bool link_proxy::add_backlink(caf::abstract_actor* other) {
  if (!caf::monitorable_actor::add_backlink(other)) return false;
  if (!dead_.load()) through_.announce_link(node_, link_op::link, other, id());
  return true;
}

bool link_proxy::remove_backlink(caf::abstract_actor* other) {
  if (!caf::monitorable_actor::remove_backlink(other)) return false;
  if (!dead_.load()) through_.announce_link(node_, link_op::unlink, other, id());
  return true;
}

void link_proxy::kill_proxy(caf::execution_unit* context, caf::error reason) {
  dead_.store(true);
  cleanup(std::move(reason), context);
}

}  // namespace tandem::actors
