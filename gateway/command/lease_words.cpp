#include "gateway/command/lease_words.hpp"

#include "gateway/command/json_view.hpp"
#include "gateway/command/terminal.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <limits>

namespace tandem::gateway::command {

using text::value;

std::string utc_moment(std::int64_t unix_ms) {
  const auto seconds = static_cast<std::time_t>(unix_ms / 1000);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  std::array<char, 32> text{};
  const auto length = std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &parts);
  return fmt::format("{}.{:03}", std::string_view(text.data(), length), unix_ms % 1000);
}

std::string event_words(const value& event) {
  std::string all = words(member(event, "device"));
  const auto add = [&](const std::string& more) {
    if (more.empty()) return;
    if (!all.empty()) all += "  ";
    all += more;
  };
  const std::string from = words(member(event, "from"));
  const std::string to = words(member(event, "to"));
  if (from != to) add(from + " -> " + to);
  add(words(member(event, "job")));
  const std::string cause = words(member(event, "cause"));
  const std::string why = words(member(event, "why"));
  add(cause.empty() || why.empty() ? cause + why : cause + ": " + why);
  return all;
}

std::string event_line(const value& event) {
  std::string line =
      fmt::format("{}  {:<10}  {}", utc_moment(integer_or(member(event, "time_ms"), 0)),
                  words(member(event, "kind")), event_words(event));
  std::ranges::replace_if(
      line, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  return line;
}

std::string held_by(const value& device) {
  const std::string holder = words(member(device, "holder"));
  const std::string job = words(member(device, "job"));
  if (holder.empty()) return "nobody";
  return job.empty() || job == holder ? holder : holder + " + " + job;
}

bool is_device_name(std::string_view name) {
  return !name.empty() && name.size() <= 128 && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == ':' ||
           c == '-' || c == '_' || c == '.' || c == '/';
  });
}

std::string device_names(const value& leases) {
  std::string all;
  for (const value& device : list(member(leases, "devices")))
    all += (all.empty() ? "" : ", ") + words(member(device, "device"));
  return all.empty() ? "none" : all;
}

std::size_t line_columns(const console& io) {
  if (!io.out_is_terminal && environment_value(io, "COLUMNS").empty())
    return std::numeric_limits<std::size_t>::max();
  return size_of_terminal(io).columns;
}

}  // namespace tandem::gateway::command
