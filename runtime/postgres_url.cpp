#include "runtime/postgres_url.hpp"

#include <algorithm>

namespace tandem {
namespace {

constexpr std::string_view hidden = "***";

// "a=1&password=x": whatever is called something with "password".
std::string options_without_password(std::string_view options) {
  std::string out;
  while (!options.empty()) {
    const auto end = options.find('&');
    const auto one = options.substr(0, end);
    options.remove_prefix(end == options.npos ? options.size() : end + 1);
    const auto equals = one.find('=');
    std::string name(one.substr(0, equals));
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    // A name with escapes may spell it too.
    const bool secret =
        equals != one.npos && (name.find("password") != name.npos || name.find('%') != name.npos);
    out += secret ? std::string(one.substr(0, equals + 1)) + std::string(hidden) : std::string(one);
    if (end != options.npos && !options.empty()) out += '&';
  }
  return out;
}

}  // namespace

bool names_postgres(std::string_view url) {
  return url.starts_with("postgresql://") || url.starts_with("postgres://");
}

std::string without_password(std::string_view url) {
  const auto scheme = url.find("://");
  if (scheme == url.npos) return std::string(url);
  std::string out(url.substr(0, scheme + 3));
  auto rest = url.substr(scheme + 3);
  // Up to the last @: a password in which one stands unescaped is hidden whole. Without a colon
  // before it, it may stand in an option's value.
  const auto at = rest.rfind('@');
  const auto who = rest.substr(0, at == rest.npos ? 0 : at);
  const auto colon = who.find(':');
  if (at != rest.npos && (colon != who.npos || who.find('?') == who.npos)) {
    out += who.substr(0, colon);
    if (colon != who.npos) out += ":" + std::string(hidden);
    out += '@';
    rest.remove_prefix(at + 1);
  }
  const auto question = rest.find('?');
  out += rest.substr(0, question);
  if (question != rest.npos) out += '?' + options_without_password(rest.substr(question + 1));
  return out;
}

}  // namespace tandem
