#include "gateway/command/http_client.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace tandem::gateway::command {
namespace {

bool is_port(std::string_view text) {
  int port = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), port);
  return read.ec == std::errc{} && read.ptr == text.data() + text.size() && port > 0 &&
         port <= 65535;
}

bool is_host(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return static_cast<unsigned char>(c) > 0x20 && c != '@' && c != '?' && c != '#';
  });
}

}  // namespace

result<http_address> parse_address(std::string_view text) {
  const error unreadable{
      errc::bad_request,
      fmt::format("\"{}\" is no address: write http://HOST:PORT or https://HOST", text),
      {}};
  http_address address;
  std::string_view rest = text;
  if (rest.starts_with("https://")) {
    address.tls = true;
    rest.remove_prefix(8);
  } else if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else if (rest.find("://") != std::string_view::npos) {
    return unreadable;
  }
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  std::string_view prefix = rest.substr(slash);
  while (prefix.ends_with('/')) prefix.remove_suffix(1);
  address.prefix = prefix;
  std::string_view authority = rest.substr(0, slash);
  std::string_view host = authority;
  std::string_view port;
  const std::size_t bracket = authority.find(']');
  if (authority.starts_with('[')) {
    if (bracket == std::string_view::npos) return unreadable;
    host = authority.substr(1, bracket - 1);
    port = authority.substr(bracket + 1);
  } else if (const std::size_t colon = authority.find(':'); colon != std::string_view::npos) {
    host = authority.substr(0, colon);
    port = authority.substr(colon);
  }
  if (!port.empty()) {
    if (port.front() != ':' || !is_port(port.substr(1))) return unreadable;
    port.remove_prefix(1);
  }
  if (!is_host(host)) return unreadable;
  address.host = host;
  address.port = !port.empty() ? std::string(port) : address.tls ? "443" : "80";
  address.text = fmt::format("{}://{}{}", address.tls ? "https" : "http", authority, prefix);
  return address;
}

std::string_view http_answer::header(std::string_view lower_case_name) const {
  for (const auto& [name, value] : headers) {
    if (name == lower_case_name) return value;
  }
  return {};
}

error refusal_of(const http_address& address, const http_answer& answer) {
  std::string message;
  if (const auto body = text::value::from_json(answer.body)) {
    const text::value* found = body->find("error");
    if (found && !found->if_string()) found = found->find("message");
    if (found && found->if_string()) message = *found->if_string();
  }
  errc code = errc::unavailable;
  if (answer.status == 401) code = errc::unauthorized;
  if (answer.status == 403) code = errc::forbidden;
  if (answer.status == 404) code = errc::not_found;
  if (answer.status == 400) code = errc::bad_request;
  if (answer.status == 409) code = errc::conflict;
  if (answer.status == 413) code = errc::too_large;
  if (answer.status == 501) code = errc::unsupported;
  std::string_view advice;
  if (code == errc::unauthorized) advice = " (give --api-key or $TANDEM_API_KEY)";
  return {code,
          message.empty()
              ? fmt::format("{} answered {}{}", address.text, answer.status, advice)
              : fmt::format("{} answered {}: {}{}", address.text, answer.status, message, advice),
          {}};
}

}  // namespace tandem::gateway::command
