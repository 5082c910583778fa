#include "gateway/http.hpp"

#include "gateway/percent_encoding.hpp"

namespace tandem::gateway {

std::string_view http_request::header(std::string_view lower_case_name) const {
  for (const auto& [name, value] : headers)
    if (name == lower_case_name) return value;
  return {};
}

std::string http_request::query_parameter(std::string_view name) const {
  std::string_view rest = query;
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(pair.size() < rest.size() ? pair.size() + 1 : rest.size());
    const std::size_t equals = pair.find('=');
    if (percent_decode(pair.substr(0, equals), true) != name) continue;
    if (equals == std::string_view::npos) return {};
    return percent_decode(pair.substr(equals + 1), true).value_or(std::string{});
  }
  return {};
}

}  // namespace tandem::gateway
