#include "gateway/refusal.hpp"

#include "gateway/json_writer.hpp"

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
  response.body = R"({"error":{"message":)";
  append_json_string(response.body, message);
  response.body += R"(,"type":)";
  append_json_string(response.body, error_type(status));
  response.body += R"(,"param":null,"code":)";
  if (code.empty()) {
    response.body += "null";
  } else {
    append_json_string(response.body, code);
  }
  response.body += "}}";
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
