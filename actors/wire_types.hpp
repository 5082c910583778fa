// Every message that may cross between processes, known by the same name on both sides.
#pragma once

#include <caf/fwd.hpp>

namespace tandem::actors {

// For every configuration that load_link is given.
void add_wire_types(caf::actor_system_config& config);

}  // namespace tandem::actors
