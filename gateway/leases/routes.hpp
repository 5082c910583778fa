// The admin plane of leases: who holds each device and why, what was decided, orders by hand, and
// the live stream of it all.
#pragma once

#include "actors/lease_board.hpp"
#include "gateway/http.hpp"
#include "gateway/leases/lease_control.hpp"

#include <functional>
#include <memory>

namespace tandem::gateway {

// Before add_page_routes, which writes /openapi.json. What it returns ends the live event streams:
// call it before the server drains, which would wait for them.
std::function<void()> add_lease_routes(router& to, std::shared_ptr<actors::lease_board> board,
                                       std::shared_ptr<lease_control> control);

}  // namespace tandem::gateway
