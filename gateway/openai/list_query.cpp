#include "gateway/openai/list_query.hpp"

#include "gateway/json_writer.hpp"
#include "gateway/openai/request_body.hpp"
#include "gateway/percent_encoding.hpp"
#include "gateway/refusal.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace tandem::gateway::openai {

std::vector<std::pair<std::string, std::string>> query_pairs(const http_request& request) {
  std::vector<std::pair<std::string, std::string>> pairs;
  std::string_view rest = request.query;
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(rest.size(), pair.size() + 1));
    const std::size_t equals = std::min(pair.find('='), pair.size());
    auto name = percent_decode(pair.substr(0, equals), true);
    auto value = percent_decode(pair.substr(std::min(pair.size(), equals + 1)), true);
    if (name && value) pairs.emplace_back(std::move(*name), std::move(*value));
  }
  return pairs;
}

result<list_query> read_list_query(const http_request& request, int limit_default, int limit_max) {
  list_query query;
  query.limit = limit_default;
  for (const auto& [name, value] : query_pairs(request)) {
    if (name == "after") {
      query.after = value;
    } else if (name == "limit") {
      const char* const end = value.data() + value.size();
      const auto read = std::from_chars(value.data(), end, query.limit);
      if (read.ec != std::errc{} || read.ptr != end || query.limit < 1 || query.limit > limit_max)
        return bad_value("limit", fmt::format("expected an integer from 1 to {}, but got '{}'",
                                              limit_max, quotable(value)));
    } else if (name == "order") {
      if (value != "asc" && value != "desc")
        return bad_value("order",
                         fmt::format("expected 'asc' or 'desc', but got '{}'", quotable(value)));
      query.oldest_first = value == "asc";
    }
  }
  return query;
}

void append_list_end(std::string& out, bool has_more, const std::string* first_id,
                     const std::string* last_id) {
  const auto id = [&](std::string_view name, const std::string* value) {
    out += name;
    if (value == nullptr)
      out += "null";
    else
      append_json_string(out, *value);
  };
  out += has_more ? R"(],"has_more":true)" : R"(],"has_more":false)";
  id(R"(,"first_id":)", first_id);
  id(R"(,"last_id":)", last_id);
  out += '}';
}

}  // namespace tandem::gateway::openai
