// What the link knows of another node, and the two forms of its identity. A node's id in CAF holds
// its address, so whoever gets a handle of an actor there can dial the node himself.
#pragma once

#include "runtime/transport/fabric.hpp"

#include <caf/node_id.hpp>

#include <mutex>
#include <optional>
#include <vector>

namespace tandem::actors {

caf::node_id to_node_id(const transport::node_identity& who);
// None: an id that no node of ours has.
std::optional<transport::node_identity> to_identity(const caf::node_id& id);

struct remote_node {
  enum class state : std::uint8_t { dialling, up, gone };
  struct waiting_frame {
    transport::bytes body;
    std::vector<transport::buffer_ptr> attachments;
    transport::fabric::urgency how;
  };

  explicit remote_node(const transport::node_identity& who) : identity(who), id(to_node_id(who)) {}

  const transport::node_identity identity;
  const caf::node_id id;
  std::mutex mutex;  // of what follows; frames go out in the order of locking it
  state now = state::dialling;
  transport::peer_ptr peer;            // on which we send
  std::vector<waiting_frame> backlog;  // until it is up
  std::uint64_t backlog_bytes = 0;
  std::vector<transport::peer_ptr> others;  // it dialled us while we dialled it
};

}  // namespace tandem::actors
