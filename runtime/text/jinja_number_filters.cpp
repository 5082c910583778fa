// Filters that make numbers.
#include "runtime/text/jinja_library.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace tandem::text::jinja {
namespace {

var absolute(interpreter& in, const var& input, arguments& args) {
  parameters("abs", args, {});
  if (const auto* d = input.if_double()) return var(std::fabs(*d));
  if (auto i = input.whole())
    return *i < 0 ? apply(in, binary_op::subtract, var(std::int64_t{0}), var(*i)) : var(*i);
  refuse("TypeError: bad operand type for abs(): '" + std::string(input.type_name()) + "'");
}

std::optional<std::int64_t> truncated(double d) {
  if (!std::isfinite(d)) return std::nullopt;
  if (std::fabs(d) >= 9223372036854775808.0) refuse("a whole number does not fit 64 bits");
  return static_cast<std::int64_t>(d);
}

var to_whole(interpreter&, const var& input, arguments& args) {
  parameters given("int", args, {"default", "base"});
  var fallback = given.has(0) ? given.at(0) : var(std::int64_t{0});
  if (input.is_undefined()) refuse("UndefinedError: " + input.why_undefined());
  if (auto i = input.whole()) return var(*i);
  if (const auto* d = input.if_double()) {
    if (auto i = truncated(*d)) return var(*i);
    return fallback;
  }
  const auto* text = input.if_string();
  if (text == nullptr) return fallback;
  auto base = given.whole(1, 10);
  if (auto i = parse_whole(text->bytes(), static_cast<int>(base))) return var(*i);
  if (auto d = parse_real(text->bytes()))
    if (auto i = truncated(*d)) return var(*i);
  return fallback;
}

var to_real(interpreter&, const var& input, arguments& args) {
  parameters given("float", args, {"default"});
  var fallback = given.has(0) ? given.at(0) : var(0.0);
  if (input.is_undefined()) refuse("UndefinedError: " + input.why_undefined());
  if (auto d = input.number()) return var(*d);
  if (const auto* text = input.if_string())
    if (auto d = parse_real(text->bytes())) return var(*d);
  return fallback;
}

// To `digits` places, the exact binary value rounded half to even, as Python rounds.
double rounded(double d, std::int64_t digits) {
  if (!std::isfinite(d) || digits > 320) return d;
  if (digits >= 0) {
    char text[800];
    std::snprintf(text, sizeof text, "%.*f", static_cast<int>(digits), d);
    return std::strtod(text, nullptr);
  }
  if (digits < -308) return std::copysign(0.0, d);
  double unit = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(d / unit) * unit;
}

std::int64_t rounded(std::int64_t i, std::int64_t digits) {
  if (digits >= 0) return i;
  if (digits < -18) return 0;
  std::int64_t unit = 1;
  for (std::int64_t n = digits; n < 0; ++n) unit *= 10;
  std::int64_t rest = i % unit;
  std::int64_t down = i - rest;
  std::int64_t twice = 2 * std::abs(rest);
  bool away = twice > unit || (twice == unit && (down / unit) % 2 != 0);
  if (!away) return down;
  std::int64_t up = 0;
  if (__builtin_add_overflow(down, i < 0 ? -unit : unit, &up))
    refuse("a whole number does not fit 64 bits");
  return up;
}

var round_filter(interpreter& in, const var& input, arguments& args) {
  parameters given("round", args, {"precision", "method"});
  std::string method = given.has(1) ? to_text(in.work, given.at(1)).bytes() : "common";
  std::int64_t precision = given.whole(0, 0);
  if (method != "common" && method != "ceil" && method != "floor")
    refuse("method must be common, ceil or floor");
  if (input.is_undefined()) refuse("UndefinedError: " + input.why_undefined());
  auto number = input.number();
  if (!number)
    refuse("TypeError: type " + std::string(input.type_name()) + " doesn't define __round__");
  if (method == "common")
    return input.whole() ? var(rounded(*input.whole(), precision))
                         : var(rounded(*number, precision));
  double unit = std::pow(10.0, static_cast<double>(precision));
  double scaled = *number * unit;
  double whole = method == "ceil" ? std::ceil(scaled) : std::floor(scaled);
  if (!std::isfinite(whole)) refuse("OverflowError: cannot convert float to integer");
  return var(whole / unit);
}

var file_size(interpreter& in, const var& input, arguments& args) {
  parameters given("filesizeformat", args, {"binary"});
  bool binary = given.truth(in, 0, false);
  std::optional<double> bytes = input.number();
  if (const auto* text = input.if_string()) bytes = parse_real(text->bytes());
  if (!bytes) refuse("ValueError: filesizeformat wants a number");
  double base = binary ? 1024 : 1000;
  if (*bytes == 1) return var::literal("1 Byte");
  if (*bytes < base) return var::literal(std::to_string(truncated(*bytes).value_or(0)) + " Bytes");
  double unit = base;
  std::string_view letters = binary ? "KMGTPEZY" : "kMGTPEZY";
  for (std::size_t i = 0;; ++i, unit *= base) {
    if (*bytes >= unit * base && i + 1 < letters.size()) continue;
    char text[400];
    std::snprintf(text, sizeof text, "%.1f %c%s", base * *bytes / (unit * base), letters[i],
                  binary ? "iB" : "B");
    return var::literal(text);
  }
}

}  // namespace

std::vector<named_filter> number_filters() {
  return {{"abs", absolute},
          {"int", to_whole},
          {"float", to_real},
          {"round", round_filter},
          {"filesizeformat", file_size}};
}

}  // namespace tandem::text::jinja
