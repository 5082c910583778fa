#include "gateway/http_error.hpp"

#include "gateway/json_writer.hpp"

#include <algorithm>

namespace tandem::gateway {

http_error describe(const error& why) {
  constexpr std::string_view request = "invalid_request_error";
  constexpr std::string_view server = "server_error";
  switch (why.code) {
    case errc::bad_request:
      return {400, request, ""};
    case errc::unauthorized:
      return {401, request, "invalid_api_key"};
    case errc::forbidden:
      return {403, request, "insufficient_permissions"};
    case errc::not_found:
      return {404, request, why.param == "model" ? "model_not_found" : "not_found"};
    case errc::context_length_exceeded:
      return {400, request, "context_length_exceeded"};
    case errc::too_large:
      return {413, request, "request_too_large"};
    case errc::conflict:
      return {409, request, "conflict"};
    case errc::overloaded:
      return {429, "rate_limit_error", "rate_limit_exceeded", true, 1000};
    case errc::unavailable:
      return {503, server, "service_unavailable", true, 2000};
    case errc::timed_out:
      // The request used up its own deadline: the same request would do so again.
      return {504, server, "deadline_exceeded"};
    case errc::cancelled:
      return {499, request, "request_cancelled"};
    case errc::unsupported:
      if (why.param.empty()) return {501, server, "not_implemented"};
      return {400, request, "unsupported_value"};
    case errc::no_memory:
      // Never fits this server's budget, however often it is asked.
      return {400, request, "out_of_memory"};
    case errc::io:
      // A full disk stays full however often it is asked.
      return {507, server, "insufficient_storage"};
    case errc::bad_file:
    case errc::internal:
      break;
  }
  return {500, server, "internal_error", true, 0};
}

std::string error_body(std::string_view message, std::string_view type, std::string_view param,
                       std::string_view code) {
  std::string body = R"({"error":)";
  char before = '{';
  auto member = [&](std::string_view name, std::string_view value, bool nullable) {
    body += before;
    before = ',';
    append_json_string(body, name);
    body += ':';
    if (nullable && value.empty())
      body += "null";
    else
      append_json_string(body, value);
  };
  member("message", message, false);
  member("type", type, false);
  member("param", param, true);
  member("code", code, true);
  return body += "}}";
}

std::string error_body(const error& why) {
  const http_error seen = describe(why);
  return error_body(why.detail, seen.type, why.param, seen.code);
}

http_response error_response(const error& why) {
  const http_error seen = describe(why);
  http_response response;
  response.status = seen.status;
  response.body = error_body(why);
  if (seen.retry_after_ms > 0) {
    // Retry-After counts whole seconds.
    const int seconds = std::max(1, (seen.retry_after_ms + 999) / 1000);
    response.headers.emplace_back("retry-after", std::to_string(seconds));
    response.headers.emplace_back("retry-after-ms", std::to_string(seen.retry_after_ms));
  }
  if (seen.status >= 500 && !seen.retry) response.headers.emplace_back("x-should-retry", "false");
  return response;
}

}  // namespace tandem::gateway
