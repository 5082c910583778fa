#include "actors/supervisor.hpp"

#include "actors/messages.hpp"

#include <utility>

namespace tandem::actors {

caf::behavior supervisor(caf::event_based_actor* self, const std::vector<caf::actor>& vital,
                         std::function<void(std::string)> broken) {
  for (const auto& actor : vital) self->monitor(actor);
  self->set_down_handler([broken = std::move(broken)](const caf::down_msg& down) {
    if (down.reason != caf::exit_reason::user_shutdown)
      broken("an actor died: " + from_caf(down.reason).detail);
  });
  return {[](caf::unit_t) {}};
}

}  // namespace tandem::actors
