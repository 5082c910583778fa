// What `is` asks.
#include "runtime/text/jinja_library.hpp"
#include "runtime/text/jinja_objects.hpp"

#include <map>

namespace tandem::text::jinja {
namespace {

const var& only(const char* name, arguments& args) {
  parameters(name, args, {"other"}, 1);
  return args.positional.empty() ? args.named.front().second : args.positional.front();
}

void none(const char* name, arguments& args) { parameters(name, args, {}); }

template <order op>
bool ordered_test(interpreter& in, const var& v, arguments& args) {
  return ordered(in.work, op, v, only("comparison", args));
}

bool equals(interpreter& in, const var& v, arguments& args) {
  return equal(in.work, v, only("eq", args));
}
bool differs(interpreter& in, const var& v, arguments& args) {
  return !equal(in.work, v, only("ne", args));
}

bool remainder_is(interpreter& in, const var& v, std::int64_t divisor, std::int64_t rest) {
  return equal(in.work, apply(in, binary_op::modulo, v, var(divisor)), var(rest));
}
bool odd(interpreter& in, const var& v, arguments& args) {
  none("odd", args);
  return remainder_is(in, v, 2, 1);
}
bool even(interpreter& in, const var& v, arguments& args) {
  none("even", args);
  return remainder_is(in, v, 2, 0);
}
bool divisible_by(interpreter& in, const var& v, arguments& args) {
  parameters given("divisibleby", args, {"num"}, 1);
  return equal(in.work, apply(in, binary_op::modulo, v, given.at(0)), var(std::int64_t{0}));
}

bool defined(interpreter&, const var& v, arguments& args) {
  none("defined", args);
  return !v.is_undefined();
}
bool undefined(interpreter&, const var& v, arguments& args) {
  none("undefined", args);
  return v.is_undefined();
}
bool is_none(interpreter&, const var& v, arguments& args) {
  none("none", args);
  return v.is_none();
}
bool boolean(interpreter&, const var& v, arguments& args) {
  none("boolean", args);
  return v.if_bool() != nullptr;
}
bool is_true(interpreter&, const var& v, arguments& args) {
  none("true", args);
  return v.if_bool() != nullptr && *v.if_bool();
}
bool is_false(interpreter&, const var& v, arguments& args) {
  none("false", args);
  return v.if_bool() != nullptr && !*v.if_bool();
}
bool integer(interpreter&, const var& v, arguments& args) {
  none("integer", args);
  return v.if_int() != nullptr;
}
bool real(interpreter&, const var& v, arguments& args) {
  none("float", args);
  return v.if_double() != nullptr;
}
bool number(interpreter&, const var& v, arguments& args) {
  none("number", args);
  return v.number().has_value();
}
bool string(interpreter&, const var& v, arguments& args) {
  none("string", args);
  return v.is_string();
}
bool mapping(interpreter&, const var& v, arguments& args) {
  none("mapping", args);
  return v.if_dict() != nullptr;
}
bool is_sequence(interpreter&, const var& v, arguments& args) {
  none("sequence", args);
  if (auto* o = v.if_object()) return o->subscriptable();
  return v.is_undefined() || v.is_string() || v.if_sequence() || v.if_dict();
}
bool iterable(interpreter& in, const var& v, arguments& args) {
  none("iterable", args);
  if (auto* o = v.if_object()) return o->iterate(in) != nullptr;
  return v.is_undefined() || v.is_string() || v.if_sequence() || v.if_dict();
}
bool callable(interpreter&, const var& v, arguments& args) {
  none("callable", args);
  return v.is_undefined() || (v.if_object() != nullptr && v.if_object()->callable());
}
bool same_as(interpreter&, const var& v, arguments& args) {
  return v.same_as(only("sameas", args));
}
bool escaped(interpreter&, const var& v, arguments& args) {
  none("escaped", args);
  return v.is_markup();
}
bool in_test(interpreter& in, const var& v, arguments& args) {
  return contains(in, only("in", args), v);
}

bool all_cased(interpreter& in, const var& v, bool upper) {
  traced_text text = to_text(in.work, v);
  in.work.spend_bytes(text.size());
  bool any = false;
  for (std::size_t i = 0; i < text.size();) {
    character c = character_at(text.bytes(), i);
    if ((upper ? is_lower(c.code) : is_upper(c.code)) || is_title(c.code)) return false;
    any = any || (upper ? is_upper(c.code) : is_lower(c.code));
    i += c.bytes;
  }
  return any;
}
bool lower(interpreter& in, const var& v, arguments& args) {
  none("lower", args);
  return all_cased(in, v, false);
}
bool upper(interpreter& in, const var& v, arguments& args) {
  none("upper", args);
  return all_cased(in, v, true);
}

bool filter_exists(interpreter&, const var& v, arguments& args) {
  none("filter", args);
  return v.is_string() && find_filter(v.if_string()->bytes()) != nullptr;
}
bool test_exists(interpreter&, const var& v, arguments& args) {
  none("test", args);
  return v.is_string() && find_test(v.if_string()->bytes()) != nullptr;
}

}  // namespace

test_function find_test(std::string_view name) {
  static const std::map<std::string_view, test_function> table = {
      {"odd", odd},
      {"even", even},
      {"divisibleby", divisible_by},
      {"defined", defined},
      {"undefined", undefined},
      {"none", is_none},
      {"boolean", boolean},
      {"true", is_true},
      {"false", is_false},
      {"integer", integer},
      {"float", real},
      {"number", number},
      {"string", string},
      {"mapping", mapping},
      {"sequence", is_sequence},
      {"iterable", iterable},
      {"callable", callable},
      {"sameas", same_as},
      {"escaped", escaped},
      {"in", in_test},
      {"lower", lower},
      {"upper", upper},
      {"filter", filter_exists},
      {"test", test_exists},
      {"==", equals},
      {"eq", equals},
      {"equalto", equals},
      {"!=", differs},
      {"ne", differs},
      {">", ordered_test<order::greater>},
      {"gt", ordered_test<order::greater>},
      {"greaterthan", ordered_test<order::greater>},
      {">=", ordered_test<order::greater_equal>},
      {"ge", ordered_test<order::greater_equal>},
      {"<", ordered_test<order::less>},
      {"lt", ordered_test<order::less>},
      {"lessthan", ordered_test<order::less>},
      {"<=", ordered_test<order::less_equal>},
      {"le", ordered_test<order::less_equal>},
  };
  auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace tandem::text::jinja
