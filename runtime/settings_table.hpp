// The table of settings: every key once, with the field it sets, what it means and which values are
// sane. Loading, showing and the documentation read this one list, so that they cannot disagree.
#pragma once

#include "runtime/settings.hpp"

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace tandem {

using setting_field =
    std::variant<std::string*, int*, std::int64_t*, double*, bool*, std::vector<std::string>*>;

// A value as a file, the environment or the command line gives it.
using setting_value =
    std::variant<std::string, std::int64_t, double, bool, std::vector<std::string>>;

struct setting {
  std::string key;  // "server.port"
  setting_field field;
  std::string_view meaning;
  double least = 0.0;  // of numbers
  double most = 0.0;
  std::vector<std::string_view> allowed;  // of strings; empty: any
  bool is_bytes = false;                  // a string that parse_bytes reads, or "auto"
};

// The table over the fields of `s`, in the order they are shown.
std::vector<setting> settings_table(settings& s);

// Sections that the published contract names and this version does not have yet.
std::span<const std::string_view> sections_not_built();
// The same for single keys: what to say about this key; nothing when it is not such a one.
std::optional<std::string_view> why_not_built(std::string_view key);

// "a whole number", as a refusal says what was expected.
std::string_view expected_kind(const setting& entry);

// Checks kind, bounds and allowed values, then sets the field. The detail of a refusal begins with
// the key; the caller puts the place in front.
result<void> set_value(const setting& entry, const setting_value& value);

// Text of the environment or the command line as the kind of value that `entry` has.
result<setting_value> value_from_text(const setting& entry, std::string_view text);

setting_value value_of(const setting& entry);

}  // namespace tandem
