// Arithmetic, subscripts and slices, as Python defines them.
#include "runtime/text/jinja_library.hpp"
#include "runtime/text/jinja_objects.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace tandem::text::jinja {
namespace {

const char* spelling(binary_op op) {
  constexpr std::array<const char*, 7> texts = {"+", "-", "*", "/", "//", "%", "** or pow()"};
  return texts[static_cast<std::size_t>(op)];
}

[[noreturn]] void refuse_types(binary_op op, const var& a, const var& b) {
  if (op == binary_op::add && a.is_string())
    refuse("TypeError: can only concatenate str (not \"" + std::string(b.type_name()) +
           "\") to str");
  refuse("TypeError: unsupported operand type(s) for " + std::string(spelling(op)) + ": '" +
         a.type_name() + "' and '" + b.type_name() + "'");
}

var checked(bool overflowed, std::int64_t result) {
  if (overflowed) refuse("a whole number does not fit 64 bits");
  return var(result);
}

std::int64_t floor_quotient(std::int64_t a, std::int64_t b) {
  std::int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

var whole_power(std::int64_t base, std::int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) refuse("ZeroDivisionError: 0.0 cannot be raised to a negative power");
    return var(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  std::int64_t result = 1;
  bool overflowed = false;
  while (exponent > 0) {
    if (exponent % 2 == 1) overflowed |= __builtin_mul_overflow(result, base, &result);
    exponent /= 2;
    if (exponent > 0) overflowed |= __builtin_mul_overflow(base, base, &base);
    if (overflowed && base != 0) break;
  }
  return checked(overflowed, result);
}

var whole_arithmetic(binary_op op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  switch (op) {
    case binary_op::add: {
      bool over = __builtin_add_overflow(a, b, &result);
      return checked(over, result);
    }
    case binary_op::subtract: {
      bool over = __builtin_sub_overflow(a, b, &result);
      return checked(over, result);
    }
    case binary_op::multiply: {
      bool over = __builtin_mul_overflow(a, b, &result);
      return checked(over, result);
    }
    case binary_op::power:
      return whole_power(a, b);
    default:
      break;
  }
  if (b == 0)
    refuse(op == binary_op::divide ? "ZeroDivisionError: division by zero"
                                   : "ZeroDivisionError: integer division or modulo by zero");
  if (op == binary_op::divide) return var(static_cast<double>(a) / static_cast<double>(b));
  if (a == INT64_MIN && b == -1) return checked(op == binary_op::floor_divide, 0);
  std::int64_t quotient = floor_quotient(a, b);
  return var(op == binary_op::floor_divide ? quotient : a - quotient * b);
}

double real_modulo(double a, double b) {
  double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

var real_arithmetic(binary_op op, double a, double b) {
  switch (op) {
    case binary_op::add:
      return var(a + b);
    case binary_op::subtract:
      return var(a - b);
    case binary_op::multiply:
      return var(a * b);
    case binary_op::power:
      if (a == 0 && b < 0) refuse("ZeroDivisionError: 0.0 cannot be raised to a negative power");
      if (a < 0 && b != std::floor(b)) refuse("a complex number is no value of a template");
      if (double result = std::pow(a, b); std::isfinite(result) || !std::isfinite(a + b))
        return var(result);
      refuse("OverflowError: numerical result out of range");
    default:
      break;
  }
  if (b == 0) refuse("ZeroDivisionError: float division by zero");
  if (op == binary_op::divide) return var(a / b);
  double rest = real_modulo(a, b);
  if (op == binary_op::modulo) return var(rest);
  double quotient = (a - rest) / b;
  double floored = std::floor(quotient);
  return var(quotient - floored > 0.5 ? floored + 1 : floored);
}

var joined(interpreter& in, const std::vector<var>& a, const std::vector<var>& b, bool tuple) {
  in.work.spend(2 * (a.size() + b.size()));
  std::vector<var> items = a;
  items.insert(items.end(), b.begin(), b.end());
  return tuple ? var::tuple(std::move(items)) : var::list(std::move(items));
}

var repeated(interpreter& in, const var& held, std::int64_t times) {
  if (const auto* text = held.if_string())
    return var(repeat(in.work, *text, times), held.is_markup());
  const auto& items = *held.if_sequence();
  std::vector<var> result;
  for (std::int64_t i = 0; i < times && !items.empty(); ++i) {
    in.work.spend(2 * items.size());
    result.insert(result.end(), items.begin(), items.end());
  }
  return held.if_list() ? var::list(std::move(result)) : var::tuple(std::move(result));
}

bool repeats(const var& v) { return v.is_string() || v.if_sequence() != nullptr; }

}  // namespace

traced_text repeat(meter& m, const traced_text& text, std::int64_t times) {
  traced_text out;
  if (times <= 0 || text.empty()) return out;
  auto count = static_cast<std::size_t>(times);
  std::size_t bound = meter::text_bytes_max + 1;
  m.spend_bytes(count > bound / text.size() ? bound : count * text.size());
  m.spend(count);
  for (std::size_t i = 0; i < count; ++i) out.append(text);
  return out;
}

var add(interpreter& in, const var& a, const var& b) {
  if (a.is_string() && b.is_string()) {
    bool markup = a.is_markup() || b.is_markup();
    auto safe = [&](const var& v) {
      return markup && !v.is_markup() ? escape_html(in.work, *v.if_string()) : *v.if_string();
    };
    in.work.spend_bytes(a.if_string()->size() + b.if_string()->size());
    traced_text out = safe(a);
    out.append(safe(b));
    return var(std::move(out), markup);
  }
  if (a.if_list() && b.if_list()) return joined(in, *a.if_list(), *b.if_list(), false);
  if (a.if_tuple() && b.if_tuple()) return joined(in, *a.if_tuple(), *b.if_tuple(), true);
  refuse_types(binary_op::add, a, b);
}

var apply(interpreter& in, binary_op op, const var& a, const var& b) {
  if (op == binary_op::modulo && a.is_string())
    return var(format_percent(in, *a.if_string(), b), a.is_markup());
  if (a.is_undefined()) refuse("UndefinedError: " + a.why_undefined());
  if (b.is_undefined()) refuse("UndefinedError: " + b.why_undefined());
  if (a.whole() && b.whole()) return whole_arithmetic(op, *a.whole(), *b.whole());
  if (a.number() && b.number()) return real_arithmetic(op, *a.number(), *b.number());
  if (op == binary_op::add) return add(in, a, b);
  if (op == binary_op::multiply) {
    if (repeats(a) && b.whole()) return repeated(in, a, *b.whole());
    if (repeats(b) && a.whole()) return repeated(in, b, *a.whole());
  }
  refuse_types(op, a, b);
}

namespace {

// "str object": how Jinja names what has no such attribute.
std::string owner_name(const var& v) {
  return v.is_none() ? "None" : std::string(v.type_name()) + " object";
}

var missing(const var& from, const var& key, meter& m) {
  std::string name = to_repr(m, key).bytes();
  if (key.is_string()) return var::undefined("'" + owner_name(from) + "' has no attribute " + name);
  return var::undefined(owner_name(from) + " has no element " + name);
}

// A place in something of `count` items; nullopt when it is outside.
std::optional<std::size_t> index_in(std::int64_t index, std::size_t count) {
  auto size = static_cast<std::int64_t>(count);
  if (index < 0) index += size;
  if (index < 0 || index >= size) return std::nullopt;
  return static_cast<std::size_t>(index);
}

std::optional<traced_text> character_of(meter& m, const traced_text& text, std::int64_t index) {
  const std::string& bytes = text.bytes();
  m.spend(bytes.size() / 64);
  if (is_ascii(bytes)) {
    auto at = index_in(index, bytes.size());
    return at ? std::optional(text.slice(*at, *at + 1)) : std::nullopt;
  }
  m.spend_bytes(bytes.size());
  auto at = index_in(index, character_count(bytes));
  if (!at) return std::nullopt;
  std::size_t offset = 0;
  for (std::size_t i = 0; i < *at; ++i) offset += character_at(bytes, offset).bytes;
  return text.slice(offset, offset + character_at(bytes, offset).bytes);
}

// from[key] without looking at attributes.
std::optional<var> own_item(interpreter& in, const var& from, const var& key) {
  if (const auto* dict = from.if_dict()) {
    if (key.if_list() || key.if_dict()) return std::nullopt;
    const var* held = dict->find(in.work, key);
    return held == nullptr ? std::nullopt : std::optional(*held);
  }
  if (auto* o = from.if_object()) return o->item(in, key);
  auto index = key.whole();
  if (!index) return std::nullopt;
  if (const auto* items = from.if_sequence()) {
    auto at = index_in(*index, items->size());
    return at ? std::optional((*items)[*at]) : std::nullopt;
  }
  if (const auto* text = from.if_string()) {
    auto one = character_of(in.work, *text, *index);
    return one ? std::optional(var(std::move(*one), from.is_markup())) : std::nullopt;
  }
  return std::nullopt;
}

std::optional<var> own_attribute(interpreter& in, const var& from, std::string_view name) {
  if (auto* o = from.if_object()) return o->attribute(in, name);
  return find_method(from, name);
}

}  // namespace

var attribute(interpreter& in, const var& from, std::string_view name) {
  if (from.is_undefined()) refuse("UndefinedError: " + from.why_undefined());
  if (auto held = own_attribute(in, from, name)) return std::move(*held);
  if (const auto* dict = from.if_dict()) {
    if (const var* held = dict->find(name)) return *held;
  } else if (auto* o = from.if_object()) {
    if (auto held = o->item(in, var::literal(name))) return std::move(*held);
  }
  return missing(from, var::literal(name), in.work);
}

var item(interpreter& in, const var& from, const var& key) {
  if (from.is_undefined()) refuse("UndefinedError: " + from.why_undefined());
  if (auto held = own_item(in, from, key)) return std::move(*held);
  if (const auto* name = key.if_string())
    if (auto held = own_attribute(in, from, name->bytes())) return std::move(*held);
  return missing(from, key, in.work);
}

namespace {

// Python's slice.indices(count): which places, in which order.
struct slice_places {
  std::int64_t start = 0;
  std::int64_t stop = 0;
  std::int64_t step = 1;
  std::int64_t count = 0;
};

std::optional<std::int64_t> bound_of(const var& v) {
  if (v.is_none()) return std::nullopt;
  if (auto i = v.whole()) return i;
  if (v.is_undefined()) refuse("UndefinedError: " + v.why_undefined());
  refuse("TypeError: slice indices must be integers or None");
}

slice_places places_of(std::size_t count, const var& start, const var& stop, const var& step) {
  auto size = static_cast<std::int64_t>(count);
  slice_places places;
  places.step = bound_of(step).value_or(1);
  if (places.step == 0) refuse("ValueError: slice step cannot be zero");
  if (places.step == INT64_MIN) places.step = -INT64_MAX;
  bool forward = places.step > 0;
  std::int64_t lowest = forward ? 0 : -1;
  std::int64_t highest = forward ? size : size - 1;
  auto clamp = [&](std::optional<std::int64_t> bound, std::int64_t fallback) {
    if (!bound) return fallback;
    std::int64_t at = *bound < 0 ? *bound + size : *bound;
    return std::clamp(at, lowest, highest);
  };
  places.start = clamp(bound_of(start), forward ? lowest : highest);
  places.stop = clamp(bound_of(stop), forward ? highest : lowest);
  std::int64_t distance = forward ? places.stop - places.start : places.start - places.stop;
  std::int64_t stride = forward ? places.step : -places.step;
  if (distance > 0) places.count = (distance - 1) / stride + 1;
  return places;
}

traced_text sliced_text(meter& m, const traced_text& text, const var& start, const var& stop,
                        const var& step) {
  const std::string& bytes = text.bytes();
  m.spend_bytes(bytes.size());
  std::vector<std::size_t> offsets;  // of each character, when they are not bytes
  bool ascii = is_ascii(bytes);
  if (!ascii) {
    for (std::size_t i = 0; i < bytes.size(); i += character_at(bytes, i).bytes)
      offsets.push_back(i);
    offsets.push_back(bytes.size());
  }
  auto offset = [&](std::int64_t i) {
    auto at = static_cast<std::size_t>(i);
    return ascii ? at : offsets[at];
  };
  auto places = places_of(ascii ? bytes.size() : offsets.size() - 1, start, stop, step);
  if (places.count == 0) return {};
  if (places.step == 1)
    return text.slice(offset(places.start), offset(places.start + places.count));
  m.spend(static_cast<std::size_t>(places.count));
  traced_text out;
  for (std::int64_t i = 0; i < places.count; ++i) {
    std::int64_t at = places.start + i * places.step;
    std::size_t from = offset(at);
    out.append(std::string_view(bytes).substr(from, offset(at + 1) - from), text.trusted_at(from));
  }
  return out;
}

}  // namespace

var slice(interpreter& in, const var& from, const var& start, const var& stop, const var& step) {
  if (from.is_undefined()) refuse("UndefinedError: " + from.why_undefined());
  if (const auto* text = from.if_string())
    return var(sliced_text(in.work, *text, start, stop, step), from.is_markup());
  if (auto* range = dynamic_cast<range_object*>(from.if_object())) {
    auto places = places_of(range->count(), start, stop, step);
    in.work.spend(8 + static_cast<std::size_t>(places.count) / 16);
    return var(range->part(places.start, places.stop, places.step));
  }
  bool as_list = from.if_list() != nullptr;
  var held = from;
  if (auto* o = from.if_object(); o != nullptr && o->subscriptable())
    held = var::tuple(items_of(in, from));
  const auto* items = held.if_sequence();
  if (items == nullptr && from.if_dict()) refuse("TypeError: unhashable type: 'slice'");
  if (items == nullptr)
    refuse("TypeError: '" + std::string(from.type_name()) + "' object is not subscriptable");
  auto places = places_of(items->size(), start, stop, step);
  in.work.spend(2 * static_cast<std::size_t>(places.count));
  std::vector<var> part;
  part.reserve(static_cast<std::size_t>(places.count));
  for (std::int64_t i = 0; i < places.count; ++i)
    part.push_back((*items)[static_cast<std::size_t>(places.start + i * places.step)]);
  return as_list ? var::list(std::move(part)) : var::tuple(std::move(part));
}

var call(interpreter& in, const var& function, arguments& args) {
  if (function.is_undefined()) refuse("UndefinedError: " + function.why_undefined());
  if (auto* o = function.if_object()) return o->call(in, args);
  refuse("TypeError: '" + std::string(function.type_name()) + "' object is not callable");
}

}  // namespace tandem::text::jinja
