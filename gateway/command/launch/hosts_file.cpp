#include "gateway/command/launch/hosts_file.hpp"

#include "runtime/nearest_name.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>

namespace tandem::gateway::command {
namespace {

constexpr std::size_t file_bytes_max = 1 << 20;
constexpr std::size_t name_bytes_max = 60;  // with a number behind it still a node's name

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  line = line.substr(0, line.find('#'));
  while (true) {
    const auto begin = line.find_first_not_of(" \t\r");
    if (begin == std::string_view::npos) return words;
    line.remove_prefix(begin);
    const auto end = std::min(line.find_first_of(" \t\r"), line.size());
    words.push_back(line.substr(0, end));
    line.remove_prefix(end);
  }
}

std::optional<int> whole_number(std::string_view text) {
  int number = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), number);
  if (read.ec != std::errc{} || read.ptr != text.data() + text.size()) return std::nullopt;
  return number;
}

bool is_host(std::string_view text) {
  return !text.starts_with("-") && text.size() <= 255 && std::ranges::all_of(text, [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("-._@:[]%").find(c) != std::string_view::npos;
  });
}

std::string node_name(std::string_view host) {
  std::string name(host.substr(host.find('@') == std::string_view::npos ? 0 : host.find('@') + 1));
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '.') c = '-';
  return name.substr(0, name_bytes_max);
}

// What is wrong with this word; empty: it is taken.
std::string take_key(host_line& line, std::string_view key, std::string_view text) {
  const std::pair<std::string_view, std::string*> keys[] = {{"name", &line.name},
                                                            {"devices", &line.devices},
                                                            {"tandem", &line.tandem},
                                                            {"home", &line.home}};
  for (const auto& [name, into] : keys) {
    if (key != name) continue;
    *into = text;
    return text.empty() ? fmt::format("{} is empty", key) : "";
  }
  if (key.find('.') != std::string_view::npos) {
    line.settings.emplace_back(key, text);
    return "";
  }
  const std::vector<std::string> known = {"name", "devices", "tandem", "home"};
  const auto near = nearest_name(key, known);
  return fmt::format("unknown key {}{}", key,
                     near ? fmt::format(": did you mean {}?", *near)
                          : ": there are name, devices, tandem, home and any SECTION.KEY");
}

std::string take_line(host_line& line, const std::vector<std::string_view>& words) {
  if (!is_host(words.front())) return fmt::format("'{}' is no host", words.front());
  line.host = words.front();
  for (std::size_t n = 1; n < words.size(); ++n) {
    const auto word = words[n];
    const auto equals = word.find('=');
    if (equals != std::string_view::npos) {
      if (auto wrong = take_key(line, word.substr(0, equals), word.substr(equals + 1));
          !wrong.empty())
        return wrong;
    } else if (const auto cores = whole_number(word); cores && n == 1 && *cores > 0) {
      line.cores = *cores;
    } else {
      return fmt::format("'{}': a line is HOST [CORES] [KEY=VALUE]…", word);
    }
  }
  if (line.cores > 0 && !line.devices.empty()) return "cores and devices both say what it lends";
  return "";
}

}  // namespace

result<std::vector<host_line>> parse_hosts(std::string_view text, const std::string& file) {
  std::vector<host_line> hosts;
  std::set<std::string> names = {"head"};
  for (int number = 1; !text.empty(); ++number) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto words = words_of(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (words.empty()) continue;
    host_line line;
    auto wrong = take_line(line, words);
    if (wrong.empty() && hosts.size() == hosts_max)
      wrong = fmt::format("more than {} hosts", hosts_max);
    const bool is_named = !line.name.empty();
    if (!is_named) line.name = node_name(line.host);
    const std::string first = line.name;
    for (int more = 2; !names.insert(line.name).second && wrong.empty(); ++more) {
      if (is_named) wrong = fmt::format("the name {} is taken", line.name);
      line.name = fmt::format("{}-{}", first, more);
    }
    if (!wrong.empty())
      return error{errc::bad_file, fmt::format("{}:{}: {}", file, number, wrong), "hosts"};
    hosts.push_back(std::move(line));
  }
  if (hosts.empty())
    return error{errc::bad_file, fmt::format("{} names no host: a line each, HOST [CORES]", file),
                 "hosts"};
  return hosts;
}

result<std::vector<host_line>> read_hosts(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(in), {});
  if (!in) return error{errc::not_found, fmt::format("{} cannot be read", file.string()), "hosts"};
  if (text.size() > file_bytes_max)
    return error{errc::bad_file, fmt::format("{} is larger than 1 MiB", file.string()), "hosts"};
  return parse_hosts(text, file.string());
}

}  // namespace tandem::gateway::command
