#include "gateway/cors.hpp"

#include <algorithm>

namespace tandem::gateway {

header_list cors_headers(const server_settings& settings, const http_request& request) {
  const std::string_view origin = request.header("origin");
  if (origin.empty()) return {};
  const auto& allowed = settings.cors_origins;
  const bool anyone = std::find(allowed.begin(), allowed.end(), "*") != allowed.end();
  if (!anyone && std::find(allowed.begin(), allowed.end(), origin) == allowed.end())
    return {{"vary", "origin"}};
  header_list headers = {{"access-control-allow-origin", anyone ? "*" : std::string(origin)},
                         {"access-control-expose-headers",
                          "x-request-id, retry-after, retry-after-ms, x-tandem-warning"}};
  if (!anyone) headers.emplace_back("vary", "origin");
  return headers;
}

bool is_preflight(const http_request& request) {
  return request.method == "OPTIONS" && !request.header("origin").empty() &&
         !request.header("access-control-request-method").empty();
}

header_list preflight_headers(const http_request& request, const std::string& allowed_methods) {
  // The clients' libraries send headers of their own (x-stainless-*), so what is asked for is
  // granted.
  std::string headers(request.header("access-control-request-headers"));
  if (headers.empty()) headers = "authorization, content-type, x-api-key, x-request-id";
  return {{"access-control-allow-methods", allowed_methods},
          {"access-control-allow-headers", std::move(headers)},
          {"access-control-max-age", "600"}};
}

}  // namespace tandem::gateway
