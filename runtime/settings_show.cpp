// Settings as a person reads them (TOML with origins) and as a program does (JSON).
#include "runtime/postgres_url.hpp"
#include "runtime/settings.hpp"
#include "runtime/settings_table.hpp"

#include <fmt/format.h>

namespace tandem {
namespace {

// A string both TOML and JSON read back.
std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(byte));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

// Likewise.
std::string written(const setting_value& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return in_quotes(*text);
  if (const auto* whole = std::get_if<std::int64_t>(&value)) return fmt::format("{}", *whole);
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* real = std::get_if<double>(&value)) {
    std::string text = fmt::format("{}", *real);
    if (text.find_first_of(".e") == std::string::npos) text += ".0";  // stays a float in TOML
    return text;
  }
  std::string out = "[";
  for (const std::string& item : *std::get_if<std::vector<std::string>>(&value)) {
    out += (out.size() > 1 ? ", " : "") + in_quotes(item);
  }
  return out + "]";
}

// As people may see it.
std::string shown(const setting& entry) {
  const auto value = value_of(entry);
  const auto* text = std::get_if<std::string>(&value);
  if (text && entry.key == "store.url") return in_quotes(without_password(*text));
  return written(value);
}

std::string origin_of(const settings& s, std::string_view key) {
  const auto it = s.origins.find(key);
  return it == s.origins.end() ? "default" : it->second;
}

}  // namespace

std::string show_settings(const settings& s) {
  settings copy = s;  // the table points at fields it could set
  std::string out;
  std::string section;
  for (const setting& entry : settings_table(copy)) {
    const std::size_t dot = entry.key.find('.');
    if (const std::string now = entry.key.substr(0, dot); now != section) {
      out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", now);
      section = now;
    }
    const std::string line = fmt::format("{} = {}", entry.key.substr(dot + 1), shown(entry));
    out += fmt::format("{:<40} # {}: {}\n", line, origin_of(s, entry.key), entry.meaning);
  }
  return out;
}

std::string show_settings_json(const settings& s) {
  settings copy = s;
  std::string out = "[";
  for (const setting& entry : settings_table(copy)) {
    out += fmt::format("{}{{\"key\": {}, \"value\": {}, \"origin\": {}, \"meaning\": {}}}",
                       out.size() > 1 ? ",\n " : "", in_quotes(entry.key), shown(entry),
                       in_quotes(origin_of(s, entry.key)), in_quotes(entry.meaning));
  }
  return out + "]\n";
}

}  // namespace tandem
