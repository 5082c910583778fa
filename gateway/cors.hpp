// Which pages of other sites a browser lets talk to us: server.cors_origins. The admin plane is
// never among what they may call.
#pragma once

#include "gateway/http.hpp"
#include "runtime/settings.hpp"

namespace tandem::gateway {

// For every answer to `request`; empty when it is not from another site or not from an allowed one.
header_list cors_headers(const server_settings& settings, const http_request& request);

// A browser asks whether it may: OPTIONS with Origin and Access-Control-Request-Method.
bool is_preflight(const http_request& request);
header_list preflight_headers(const http_request& request, const std::string& allowed_methods);

}  // namespace tandem::gateway
