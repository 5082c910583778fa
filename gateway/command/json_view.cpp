#include "gateway/command/json_view.hpp"

#include <cmath>

namespace tandem::gateway::command {

using text::value;

const value& member(const value& object, std::string_view key) {
  static const value nothing;
  const value* found = object.find(key);
  return found ? *found : nothing;
}

std::string words(const value& v) {
  if (v.is_null()) return "";
  return v.if_string() ? *v.if_string() : v.to_json();
}

std::optional<double> number(const value& v) {
  if (const auto* whole = v.if_int()) return static_cast<double>(*whole);
  if (const auto* real = v.if_double(); real && std::isfinite(*real)) return *real;
  return std::nullopt;
}

double number_or(const value& v, double otherwise) { return number(v).value_or(otherwise); }

std::int64_t integer_or(const value& v, std::int64_t otherwise) {
  return v.if_int() ? *v.if_int() : otherwise;
}

const value::array& list(const value& v) {
  static const value::array empty;
  return v.if_array() ? *v.if_array() : empty;
}

}  // namespace tandem::gateway::command
