// The newest serve report as text: Prometheus series, and the JSON of /admin/cluster.
#pragma once

#include "actors/messages.hpp"
#include "gateway/engine.hpp"

#include <optional>
#include <string>

namespace tandem::gateway {

std::string metrics_text(const std::optional<actors::serve_report>& report, int requests_inside);

std::string status_text(readiness state, const std::string& detail, const served_model* model,
                        const std::optional<actors::serve_report>& report, int requests_inside);

}  // namespace tandem::gateway
