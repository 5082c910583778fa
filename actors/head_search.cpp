#include "actors/head_search.hpp"

#include "runtime/transport/address.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::actors {

result<std::vector<std::string>> parse_heads(std::string_view text) {
  std::vector<std::string> heads;
  while (true) {
    const auto comma = text.find(',');
    const std::string one(text.substr(0, comma));
    if (auto read = transport::address::parse(one); !read) return read.error();
    if (std::ranges::find(heads, one) == heads.end()) heads.push_back(one);
    if (comma == text.npos) break;
    text.remove_prefix(comma + 1);
  }
  if (heads.size() > heads_asked_max)
    return error{
        errc::bad_request,
        fmt::format("{} addresses of heads: {} are allowed", heads.size(), heads_asked_max),
        "ADDRESS"};
  return heads;
}

std::vector<std::string> head_search::addresses() const {
  auto all = given_;
  for (const auto& one : told_)
    if (std::ranges::find(all, one) == all.end() && all.size() < heads_asked_max)
      all.push_back(one);
  return all;
}

void head_search::told(const std::string& in, std::vector<std::string> others) {
  told_ = std::move(others);
  told_.insert(told_.begin(), in);
}

std::string nobody_leads(const std::vector<std::pair<std::string, std::string>>& refusals) {
  if (refusals.size() == 1) return refusals.front().second;
  std::string text;
  for (const auto& [address, why] : refusals)
    text += fmt::format("{}{}{}", text.empty() ? "" : "; ",
                        why.starts_with(address) ? "" : address + ": ", why);
  return text;
}

}  // namespace tandem::actors
