// The admin plane of nodes: which are in the cluster, and taking one out.
#pragma once

#include "actors/roster.hpp"
#include "gateway/http.hpp"

#include <memory>

namespace tandem::gateway {

// Before add_page_routes, which writes /openapi.json.
void add_node_routes(router& to, std::shared_ptr<actors::node_board> board,
                     actors::roster_actor roster);

}  // namespace tandem::gateway
