// What lists are asked with: `after`, `limit`, `order` and filters in the query.
#pragma once

#include "gateway/http.hpp"
#include "runtime/result.hpp"

#include <string>
#include <utility>
#include <vector>

namespace tandem::gateway::openai {

struct list_query {
  std::string after;
  int limit = 0;
  bool oldest_first = false;
};
result<list_query> read_list_query(const http_request& request, int limit_default, int limit_max);

// Every pair of the query, decoded, in order; broken escapes are left out.
std::vector<std::pair<std::string, std::string>> query_pairs(const http_request& request);

// {"object":"list","data":[…],"has_more":…,"first_id":…,"last_id":…}
template <class Rows, class Append>
std::string list_body(const Rows& rows, bool has_more, Append append);

void append_list_end(std::string& out, bool has_more, const std::string* first_id,
                     const std::string* last_id);

template <class Rows, class Append>
std::string list_body(const Rows& rows, bool has_more, Append append) {
  std::string out = R"({"object":"list","data":[)";
  bool first = true;
  for (const auto& row : rows) {
    if (!first) out += ',';
    first = false;
    append(out, row);
  }
  append_list_end(out, has_more, rows.empty() ? nullptr : &rows.front().id,
                  rows.empty() ? nullptr : &rows.back().id);
  return out;
}

}  // namespace tandem::gateway::openai
