// Watches the actors a process cannot live without: when one ends of itself, the process is broken
// and must say so and end, never live on half dead.
#pragma once

#include <caf/all.hpp>

#include <functional>
#include <string>
#include <vector>

namespace tandem::actors {

caf::behavior supervisor(caf::event_based_actor* self, const std::vector<caf::actor>& vital,
                         std::function<void(std::string)> broken);

}  // namespace tandem::actors
