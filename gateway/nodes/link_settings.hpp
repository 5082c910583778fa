// What a process needs to speak to others of its cluster, from the settings.
#pragma once

#include "runtime/device_spec.hpp"
#include "runtime/settings.hpp"
#include "runtime/transport/fabric.hpp"

#include <caf/fwd.hpp>

#include <memory>
#include <string>
#include <vector>

namespace tandem::gateway {

// Are the devices of this process in workers?
bool in_workers(const settings& configuration);
// The same for whether the head needs a link: for workers, or for nodes that join.
bool wants_link(const settings& configuration);

// Of the head, or of a node that joins: without a listen address any port of `usual_host`. A head
// that nobody else may join makes a secret of its own for its workers.
result<transport::fabric_options> link_options(const settings& configuration,
                                               const std::vector<device_spec>& devices,
                                               const std::string& usual_host);

// A configuration whose actor system speaks over this link and knows every message.
result<std::unique_ptr<caf::actor_system_config>> linked_config(transport::fabric_options options);

}  // namespace tandem::gateway
