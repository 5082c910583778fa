// The newest serve report as text: Prometheus series, and the JSON of /admin/cluster.
#pragma once

#include "actors/messages.hpp"
#include "gateway/engine.hpp"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tandem::gateway {

std::string metrics_text(const std::optional<actors::serve_report>& report, int requests_inside);

std::string status_text(readiness state, const std::string& detail,
                        const std::vector<std::shared_ptr<const served_model>>& served,
                        const std::optional<actors::serve_report>& report, int requests_inside);

}  // namespace tandem::gateway
