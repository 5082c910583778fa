// What is not about text: probes, version, metrics, the document of all routes, the cluster as the
// page shows it, and the page itself.
#pragma once

#include "gateway/engine.hpp"
#include "gateway/http.hpp"
#include "runtime/settings.hpp"

#include <functional>
#include <memory>
#include <string>

namespace tandem::gateway {

// The page, probes, version and metrics, which need no coordinator.
void add_probe_routes(router& to, std::shared_ptr<engine> door,
                      std::function<std::string()> server_metrics);

// These and all others. Call it last: /openapi.json is written here, from all routes that were
// added before and these. `server_metrics` (may be empty) is the server's own Prometheus text, put
// behind the engine's.
void add_page_routes(router& to, std::shared_ptr<engine> door, const settings& s,
                     std::function<std::string()> server_metrics);

}  // namespace tandem::gateway
