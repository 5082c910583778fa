// Leases, their events and the policy as the JSON of the admin routes.
#pragma once

#include "runtime/lease/report.hpp"
#include "runtime/text/value.hpp"

#include <cstdint>

namespace tandem::gateway {

// {"device", "role", "holder", "job", "epoch"}; who does not hold and what does not train is null.
text::value lease_json(const lease::lease& held);
text::value policy_json(const lease::policy_settings& policy);
text::value lease_event_json(const lease::event& event);
// The whole of /admin/leases. `now_ms`: Unix milliseconds, what `since_ms` counts up to.
text::value lease_report_json(const lease::report& report, std::int64_t now_ms);

}  // namespace tandem::gateway
