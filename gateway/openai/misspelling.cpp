#include "gateway/openai/misspelling.hpp"

#include <algorithm>
#include <array>
#include <string>

namespace tandem::gateway::openai {

namespace {

constexpr std::size_t name_bytes_max = 64;

std::string folded(std::string_view name) {
  std::string plain;
  for (const char c : name) {
    if (c == '_' || c == '-') continue;
    plain += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return plain;
}

}  // namespace

int misspelling_distance(std::string_view a_given, std::string_view b_given, int most) {
  const std::string a = folded(a_given.substr(0, name_bytes_max));
  const std::string b = folded(b_given.substr(0, name_bytes_max));
  if (std::max(a.size(), b.size()) - std::min(a.size(), b.size()) > static_cast<std::size_t>(most))
    return most + 1;
  std::array<std::array<int, name_bytes_max + 1>, name_bytes_max + 1> cost{};
  for (std::size_t i = 0; i <= a.size(); ++i) cost[i][0] = static_cast<int>(i);
  for (std::size_t j = 0; j <= b.size(); ++j) cost[0][j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int replaced = cost[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      cost[i][j] = std::min({replaced, cost[i - 1][j] + 1, cost[i][j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
    }
  }
  return std::min(cost[a.size()][b.size()], most + 1);
}

std::string_view nearest_name(std::string_view unknown, std::span<const std::string_view> known) {
  std::string_view nearest;
  int nearest_distance = 3;
  if (unknown.size() > name_bytes_max) return nearest;
  for (const std::string_view name : known) {
    const int allowed = name.size() <= 2 ? 0 : name.size() <= 5 ? 1 : 2;
    const int distance = misspelling_distance(unknown, name);
    if (distance > allowed || distance >= nearest_distance) continue;
    nearest = name;
    nearest_distance = distance;
  }
  return nearest;
}

}  // namespace tandem::gateway::openai
