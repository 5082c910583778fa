#include "gateway/refusal.hpp"

#include "gateway/http_error.hpp"

namespace tandem::gateway {

namespace {

std::string_view error_type(int status) {
  if (status == 429) return "rate_limit_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

}  // namespace

http_response refusal(int status, std::string_view message, std::string_view code) {
  http_response response;
  response.status = status;
  response.body = error_body(message, error_type(status), {}, code);
  return response;
}

std::string quotable(std::string_view bytes) {
  constexpr std::size_t characters_max = 200;
  std::string quoted;
  for (const char c : bytes.substr(0, characters_max)) quoted += c < ' ' || c > '~' ? '?' : c;
  if (bytes.size() > characters_max) quoted += "...";
  return quoted;
}

}  // namespace tandem::gateway
