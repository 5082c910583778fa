// Settings from defaults, file, environment and command line, each layer over the one before.
#include "runtime/settings.hpp"

#include "runtime/nearest_name.hpp"
#include "runtime/postgres_url.hpp"
#include "runtime/settings_table.hpp"

#define TOML_EXCEPTIONS 0
#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>

namespace tandem {
namespace {

constexpr std::size_t file_bytes_max = 1 << 20;

// One setting being loaded: the table over `result`, and where each key came from.
struct loading {
  settings loaded;
  std::vector<setting> table = settings_table(loaded);

  loading() {
    for (const setting& entry : table) loaded.origins[entry.key] = "default";
  }
  loading(const loading&) = delete;  // the table points into `loaded`
  loading& operator=(const loading&) = delete;

  const setting* find(std::string_view key) const {
    const auto it = std::ranges::find(table, key, &setting::key);
    return it == table.end() ? nullptr : &*it;
  }
  std::vector<std::string> keys() const {
    std::vector<std::string> names;
    for (const setting& entry : table) names.push_back(entry.key);
    return names;
  }
  std::vector<std::string> sections() const {
    std::vector<std::string> names;
    for (const setting& entry : table) {
      std::string section = entry.key.substr(0, entry.key.find('.'));
      if (names.empty() || names.back() != section) names.push_back(std::move(section));
    }
    return names;
  }
};

error refused(std::string_view place, std::string_view why, std::string_view key) {
  return {errc::bad_request, fmt::format("{}: {}", place, why), std::string(key)};
}

bool is_section_not_built(std::string_view name) {
  return std::ranges::find(sections_not_built(), name) != sections_not_built().end();
}

// Why no setting has this key, with the nearest one that exists.
error unknown_key(const loading& state, std::string_view place, std::string_view key) {
  const std::string_view section = key.substr(0, key.find('.'));
  if (is_section_not_built(section)) {
    return refused(place, fmt::format("[{}] is not built yet in this version: remove it", section),
                   key);
  }
  if (const auto why = why_not_built(key)) {
    return refused(place, fmt::format("{}: {}", key, *why), key);
  }
  const std::vector<std::string> keys = state.keys();
  if (const auto near = nearest_name(key, keys)) {
    return refused(place, fmt::format("unknown key {}: did you mean {}?", key, *near), key);
  }
  // A right key in a wrong section is a usual slip.
  const std::string tail = "." + std::string(key.substr(key.rfind('.') + 1));
  for (const std::string& known : keys) {
    if (known.ends_with(tail)) {
      return refused(place, fmt::format("unknown key {}: did you mean {}?", key, known), key);
    }
  }
  return refused(place, fmt::format("unknown key {}: `tandem config show` lists all", key), key);
}

result<void> set(loading& state, std::string_view place, std::string_view key,
                 const setting_value& value, std::string origin) {
  const setting* entry = state.find(key);
  if (!entry) return unknown_key(state, place, key);
  if (const auto done = set_value(*entry, value); !done) {
    return refused(place, done.error().detail, key);
  }
  state.loaded.origins[entry->key] = std::move(origin);
  return {};
}

result<void> set_from_text(loading& state, std::string_view place, std::string_view key,
                           std::string_view text, std::string origin) {
  const setting* entry = state.find(key);
  if (!entry) return unknown_key(state, place, key);
  const auto value = value_from_text(*entry, text);
  if (!value) return refused(place, value.error().detail, key);
  return set(state, place, key, *value, std::move(origin));
}

std::optional<setting_value> value_from_toml(const toml::node& node) {
  if (const auto* text = node.as_string()) return setting_value(text->get());
  if (const auto* whole = node.as_integer()) return setting_value(whole->get());
  if (const auto* real = node.as_floating_point()) return setting_value(real->get());
  if (const auto* flag = node.as_boolean()) return setting_value(flag->get());
  const auto* list = node.as_array();
  if (!list) return std::nullopt;
  std::vector<std::string> items;
  for (const toml::node& item : *list) {
    const auto* text = item.as_string();
    if (!text) return std::nullopt;
    items.push_back(text->get());
  }
  return setting_value(std::move(items));
}

result<void> load_section(loading& state, std::string_view file, std::string_view section,
                          const toml::table& members) {
  for (const auto& [name, node] : members) {
    const std::string key = fmt::format("{}.{}", section, name.str());
    const std::string place = fmt::format("{}:{}", file, name.source().begin.line);
    const setting* entry = state.find(key);
    if (!entry) return unknown_key(state, place, key);
    const auto value = value_from_toml(node);
    if (!value) {
      return refused(place, fmt::format("{}: expected {}", key, expected_kind(*entry)), key);
    }
    if (auto done = set(state, place, key, *value, "file " + place); !done) return done;
  }
  return {};
}

result<std::string> read_settings_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in || std::filesystem::is_directory(file)) {
    return error{errc::not_found,
                 fmt::format("{}: no settings file there that can be read", file.string()),
                 {}};
  }
  std::string text(file_bytes_max + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  if (text.size() > file_bytes_max) {
    return error{
        errc::too_large,
        fmt::format("{}: over {} bytes, which is no settings file", file.string(), file_bytes_max),
        {}};
  }
  return text;
}

result<void> load_file(loading& state, const std::filesystem::path& file) {
  const auto text = read_settings_file(file);
  if (!text) return text.error();
  const toml::parse_result parsed = toml::parse(std::string_view(*text), file.string());
  if (!parsed) {
    const toml::parse_error& why = parsed.error();
    return refused(fmt::format("{}:{}", file.string(), why.source().begin.line),
                   fmt::format("not valid TOML: {}", why.description()), {});
  }
  for (const auto& [name, node] : parsed.table()) {
    const std::string place = fmt::format("{}:{}", file.string(), name.source().begin.line);
    const std::string section(name.str());
    const auto sections = state.sections();
    if (std::ranges::find(sections, section) == sections.end()) {
      if (is_section_not_built(section)) return unknown_key(state, place, section);
      const auto near = nearest_name(section, sections);
      return refused(place,
                     fmt::format("unknown section [{}]{}", section,
                                 near ? fmt::format(": did you mean [{}]?", *near)
                                      : std::string(": `tandem config show` lists all")),
                     section);
    }
    const auto* members = node.as_table();
    if (!members) {
      return refused(place, fmt::format("{} is a section: write [{}]", section, section), section);
    }
    if (auto done = load_section(state, file.string(), section, *members); !done) return done;
  }
  return {};
}

std::string environment_name(std::string_view key) {
  std::string name = "TANDEM_";
  for (const char c : key) {
    name += c == '.' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

// Names of ours that are no settings (TANDEM_HOME, TANDEM_ADDRESS, ...) are left alone; a name
// whose section is known, or that is nearly a setting's, is a misspelling and refused.
result<void> load_environment(loading& state, const std::string& name, const std::string& text) {
  if (!name.starts_with("TANDEM_")) return {};
  std::vector<std::string> known;
  for (const setting& entry : state.table) {
    known.push_back(environment_name(entry.key));
    if (known.back() != name) continue;
    const std::string place = "environment " + name;
    return set_from_text(state, place, entry.key, text, place);
  }
  for (const std::string_view section : sections_not_built()) {
    if (name.starts_with(environment_name(section) + "_")) {
      return refused(
          "environment " + name,
          fmt::format("[{}] is not built yet in this version: unset the variable", section), name);
    }
  }
  bool ours = false;
  for (const std::string& section : state.sections()) {
    ours = ours || name.starts_with(environment_name(section) + "_");
  }
  const auto near = nearest_name(name, known);
  if (!ours && !(near && edit_distance(*near, name) <= 2)) return {};
  return refused("environment " + name,
                 near ? fmt::format("unknown setting: did you mean {}?", *near)
                      : std::string("unknown setting: `tandem config show` lists all"),
                 name);
}

// What no single key can say.
result<void> check_together(const settings& s) {
  const auto place = [&](std::string_view key) { return s.origins.find(key)->second; };
  if (s.server.tls_cert.empty() != s.server.tls_key.empty()) {
    const std::string_view given = s.server.tls_key.empty() ? "server.tls_cert" : "server.tls_key";
    const std::string_view missing =
        s.server.tls_key.empty() ? "server.tls_key" : "server.tls_cert";
    return refused(place(given), fmt::format("{} needs {} as well", given, missing), missing);
  }
  if (s.devices.list.empty()) {
    return refused(place("devices.list"), "devices.list: is empty: give [\"auto\"] or names",
                   "devices.list");
  }
  return {};
}

}  // namespace

std::filesystem::path tandem_home() {
  if (const char* home = std::getenv("TANDEM_HOME"); home && *home) return home;
  if (const char* home = std::getenv("HOME"); home && *home) {
    return std::filesystem::path(home) / ".tandem";
  }
  return ".tandem";
}

result<std::filesystem::path> store_folder(const store_settings& s) {
  if (s.url.empty()) return tandem_home() / "store";
  std::string_view url = s.url;
  constexpr std::string_view scheme = "sqlite:";
  if (names_postgres(url)) return tandem_home() / "store";
  if (!url.starts_with(scheme) || url.size() == scheme.size())
    return error{errc::bad_request,
                 "store.url: \"" + without_password(s.url) +
                     "\" names no store: give \"sqlite:FOLDER\", "
                     "\"postgresql://USER:PASSWORD@HOST:PORT/DATABASE\", or nothing for "
                     "$TANDEM_HOME/store",
                 "store.url"};
  url.remove_prefix(scheme.size());
  if (url.starts_with("///")) url.remove_prefix(2);  // an address without a host
  return std::filesystem::path(url);
}

std::filesystem::path jobs_folder(const train_settings& s) {
  return s.directory.empty() ? tandem_home() / "jobs" : std::filesystem::path(s.directory);
}

result<settings> load_settings(const std::filesystem::path& file,
                               const std::vector<std::pair<std::string, std::string>>& environment,
                               const std::vector<std::pair<std::string, std::string>>& overrides) {
  loading state;
  if (!file.empty()) {
    if (const auto done = load_file(state, file); !done) return done.error();
  }
  for (const auto& [name, text] : environment) {
    if (const auto done = load_environment(state, name, text); !done) return done.error();
  }
  for (const auto& [key, text] : overrides) {
    if (const auto done = set_from_text(state, "command line", key, text, "command line"); !done) {
      return done.error();
    }
  }
  if (const auto done = check_together(state.loaded); !done) return done.error();
  return std::move(state.loaded);
}

result<std::int64_t> parse_bytes(std::string_view text) {
  struct unit {
    std::string_view name;
    std::int64_t bytes;
  };
  static constexpr std::array<unit, 10> units = {{{"", 1},
                                                  {"B", 1},
                                                  {"KB", 1'000},
                                                  {"MB", 1'000'000},
                                                  {"GB", 1'000'000'000},
                                                  {"TB", 1'000'000'000'000},
                                                  {"KiB", std::int64_t{1} << 10},
                                                  {"MiB", std::int64_t{1} << 20},
                                                  {"GiB", std::int64_t{1} << 30},
                                                  {"TiB", std::int64_t{1} << 40}}};
  const error unreadable{
      errc::bad_request,
      fmt::format("\"{}\" is no size in bytes: write \"512MiB\", \"2GB\" or \"1048576\"", text),
      {}};
  double count = 0;
  const char* end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, count, std::chars_format::fixed);
  if (read.ec != std::errc{} || !(count >= 0)) return unreadable;
  std::string_view rest(read.ptr, static_cast<std::size_t>(end - read.ptr));
  while (rest.starts_with(' ')) rest.remove_prefix(1);
  for (const unit& u : units) {
    if (u.name != rest) continue;
    const double bytes = count * static_cast<double>(u.bytes);
    if (bytes >= 9.2e18) return unreadable;
    return static_cast<std::int64_t>(bytes);
  }
  return unreadable;
}

}  // namespace tandem
