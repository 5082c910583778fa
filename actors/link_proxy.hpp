// An actor of another node, as the actors here see it. What is sent to it is written in the
// sender's thread and queued at the link; when it or its node ends, its monitors and links hear of
// it and requests come back at once.
#pragma once

#include "actors/remote_node.hpp"

#include <caf/actor_proxy.hpp>
#include <caf/all.hpp>

#include <atomic>
#include <memory>

namespace tandem::actors {

class link;

class link_proxy final : public caf::actor_proxy {
 public:
  link_proxy(caf::actor_config& config, link& through, std::shared_ptr<remote_node> node);

  void enqueue(caf::mailbox_element_ptr what, caf::execution_unit* context) override;
  bool add_backlink(caf::abstract_actor* other) override;
  bool remove_backlink(caf::abstract_actor* other) override;
  void kill_proxy(caf::execution_unit* context, caf::error reason) override;

  const std::shared_ptr<remote_node>& node_of() const { return node_; }

 private:
  link& through_;
  const std::shared_ptr<remote_node> node_;  // none: no node has such an identity
  std::atomic<bool> dead_{false};
};

}  // namespace tandem::actors
