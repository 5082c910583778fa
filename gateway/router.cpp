// Which route a path means. A literal path beats one with {name}, which beats {name...}.
#include "gateway/http.hpp"

#include <algorithm>
#include <optional>

namespace tandem::gateway {

namespace {

bool is_parameter(std::string_view segment) {
  return segment.size() > 2 && segment.front() == '{' && segment.back() == '}';
}

bool takes_rest(std::string_view segment) {
  return is_parameter(segment) && segment.size() > 5 && segment.ends_with("...}");
}

std::string_view next_segment(std::string_view& rest) {
  const std::string_view segment = rest.substr(0, rest.find('/'));
  rest.remove_prefix(std::min(rest.size(), segment.size() + 1));
  return segment;
}

// 0: literal, 1: holds {name}, 2: ends in {name...}.
int vagueness(std::string_view pattern) {
  if (pattern.ends_with("...}")) return 2;
  return pattern.find('{') == std::string_view::npos ? 0 : 1;
}

std::optional<std::vector<std::string>> parameters_of(std::string_view pattern,
                                                      std::string_view path) {
  std::vector<std::string> parameters;
  if (pattern == path) return parameters;
  if (!path.starts_with('/') || vagueness(pattern) == 0) return std::nullopt;
  pattern.remove_prefix(1);
  path.remove_prefix(1);
  for (;;) {
    const bool slash_in_path = path.find('/') != std::string_view::npos;
    const bool slash_in_pattern = pattern.find('/') != std::string_view::npos;
    const std::string_view wanted = next_segment(pattern);
    if (takes_rest(wanted)) {
      if (path.empty()) return std::nullopt;
      parameters.emplace_back(path);
      return parameters;
    }
    const std::string_view segment = next_segment(path);
    if (slash_in_path != slash_in_pattern) return std::nullopt;
    if (is_parameter(wanted)) {
      if (segment.empty()) return std::nullopt;
      parameters.emplace_back(segment);
    } else if (segment != wanted) {
      return std::nullopt;
    }
    if (!slash_in_pattern) return parameters;
  }
}

}  // namespace

void router::add(route r) {
  ensure(r.path.starts_with('/'), "a route's path begins with a slash");
  ensure(r.handler != nullptr, "a route has a handler");
  std::string_view rest = std::string_view(r.path).substr(1);
  while (!rest.empty())
    ensure(!takes_rest(next_segment(rest)) || rest.empty(), "{name...} is a route's last segment");
  for (const route& other : routes_)
    ensure(other.method != r.method || other.path != r.path, "a route is added once");
  routes_.push_back(std::move(r));
}

router::match router::find(std::string_view method, std::string_view path) const {
  match best;
  int best_vagueness = 3;
  std::vector<std::string> allowed;
  for (const route& candidate : routes_) {
    const int vague = vagueness(candidate.path);
    if (vague > best_vagueness || (vague == best_vagueness && best.found != nullptr)) continue;
    auto parameters = parameters_of(candidate.path, path);
    if (!parameters) continue;
    if (vague < best_vagueness) {
      // A more exact path owns the address: methods of vaguer ones do not count.
      best_vagueness = vague;
      best = {};
      allowed.clear();
    }
    if (candidate.method == method) {
      best.found = &candidate;
      best.path_parameters = std::move(*parameters);
    } else {
      allowed.push_back(candidate.method);
    }
  }
  if (best.found == nullptr) {
    if (std::find(allowed.begin(), allowed.end(), "GET") != allowed.end())
      allowed.emplace_back("HEAD");
    if (!allowed.empty()) allowed.emplace_back("OPTIONS");
    best.allowed = std::move(allowed);
  }
  return best;
}

}  // namespace tandem::gateway
