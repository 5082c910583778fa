// Methods of strings, lists, tuples and dicts, as Python has them.
#include "runtime/text/jinja_library.hpp"
#include "runtime/text/jinja_objects.hpp"

#include <unicode/uchar.h>

#include <algorithm>
#include <map>

namespace tandem::text::jinja {
namespace {

using method = var (*)(interpreter& in, const var& self, arguments& args);

// --- strings

const traced_text& text_of(const var& v) { return *v.if_string(); }
var like(const var& self, traced_text text) { return var(std::move(text), self.is_markup()); }

template <bool left, bool right>
var strip(interpreter& in, const var& self, arguments& args) {
  parameters given("strip", args, {"chars"});
  in.work.spend_bytes(text_of(self).size());
  if (!given.none(0) && given.text(0).empty()) return self;
  std::string_view characters = given.none(0) ? std::string_view() : given.text(0).bytes();
  auto kept = strip_range(text_of(self).bytes(), characters, left, right);
  return like(self, text_of(self).slice(kept.from, kept.to));
}

template <case_change how>
var cased(interpreter& in, const var& self, arguments& args) {
  parameters("case", args, {});
  in.work.spend_bytes(2 * text_of(self).size());
  return like(self, change_case(text_of(self), how));
}

// Words between stretches of white space, at most `count` cuts; the last keeps the rest.
std::vector<byte_range> split_space(std::string_view text, std::int64_t count, bool from_right) {
  std::vector<byte_range> parts;
  byte_range rest = strip_range(text, {}, true, true);
  while (rest.from < rest.to) {
    if (count-- == 0) {
      parts.push_back(from_right ? byte_range{0, rest.to} : byte_range{rest.from, text.size()});
      break;
    }
    if (from_right) {
      std::size_t start = rest.to;
      for (character c; start > rest.from && !is_space((c = character_before(text, start)).code);)
        start -= c.bytes;
      parts.push_back({start, rest.to});
      rest.to =
          rest.from + strip_range(text.substr(rest.from, start - rest.from), {}, false, true).to;
    } else {
      std::size_t end = rest.from;
      for (character c; end < rest.to && !is_space((c = character_at(text, end)).code);)
        end += c.bytes;
      parts.push_back({rest.from, end});
      rest.from = end + strip_range(text.substr(end, rest.to - end), {}, true, false).from;
    }
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<byte_range> split_at(meter& m, std::string_view text, std::string_view separator,
                                 std::int64_t count, bool from_right) {
  std::vector<byte_range> parts;
  if (!from_right) {
    std::size_t done = 0;
    for (; count != 0; --count) {
      std::size_t found = find_text(text, separator, done);
      if (found == std::string_view::npos) break;
      parts.push_back({done, found});
      done = found + separator.size();
    }
    parts.push_back({done, text.size()});
    return parts;
  }
  std::size_t end = text.size();
  for (std::size_t at = end; count != 0 && at >= separator.size();) {
    std::size_t start = at - separator.size();
    m.spend(1 + separator.size() / 64);
    if (text.compare(start, separator.size(), separator) != 0) {
      --at;
      continue;
    }
    parts.push_back({at, end});
    end = start;
    at = start;
    --count;
  }
  parts.push_back({0, end});
  std::reverse(parts.begin(), parts.end());
  return parts;
}

template <bool from_right>
var split(interpreter& in, const var& self, arguments& args) {
  parameters given("split", args, {"sep", "maxsplit"});
  const traced_text& text = text_of(self);
  in.work.spend_bytes(2 * text.size());
  std::int64_t count = given.whole(1, -1);
  if (!given.none(0) && given.text(0).empty()) refuse("ValueError: empty separator");
  auto ranges = given.none(0)
                    ? split_space(text.bytes(), count, from_right)
                    : split_at(in.work, text.bytes(), given.text(0).bytes(), count, from_right);
  std::vector<var> parts;
  in.work.spend(3 * ranges.size());
  for (auto [from, to] : ranges) parts.push_back(like(self, text.slice(from, to)));
  return var::list(std::move(parts));
}

var splitlines(interpreter& in, const var& self, arguments& args) {
  parameters given("splitlines", args, {"keepends"});
  in.work.spend_bytes(text_of(self).size());
  auto ranges = split_lines(text_of(self).bytes(), given.truth(in, 0, false));
  std::vector<var> lines;
  in.work.spend(3 * ranges.size());
  for (auto [from, to] : ranges) lines.push_back(like(self, text_of(self).slice(from, to)));
  return var::list(std::move(lines));
}

// The bytes of characters [start, end) as Python's optional bounds give them.
struct window {
  std::size_t from = 0;
  std::size_t to = 0;
  bool inside = true;  // false when start lies behind the end
};

window window_of(interpreter& in, const std::string& text, const parameters& given, std::size_t i) {
  if (given.none(i) && given.none(i + 1)) return {0, text.size(), true};
  in.work.spend_bytes(2 * text.size());
  auto count = static_cast<std::int64_t>(character_count(text));
  auto bound = [&](std::size_t at, std::int64_t fallback) {
    std::int64_t n = given.none(at) ? fallback : given.whole(at, fallback);
    return n < 0 ? std::max<std::int64_t>(n + count, 0) : n;
  };
  std::int64_t start = bound(i, 0);
  std::int64_t end = std::min(bound(i + 1, count), count);
  if (start > end) return {0, 0, false};
  auto offset = [&](std::int64_t n) {
    std::size_t at = 0;
    for (std::int64_t k = 0; k < n; ++k) at += character_at(text, at).bytes;
    return at;
  };
  return {offset(start), offset(end), true};
}

template <bool at_end>
var has_affix(interpreter& in, const var& self, arguments& args) {
  parameters given(at_end ? "endswith" : "startswith", args, {"affix", "start", "end"}, 1);
  const std::string& text = text_of(self).bytes();
  window w = window_of(in, text, given, 1);
  std::string_view part = std::string_view(text).substr(w.from, w.to - w.from);
  auto matches = [&](const var& affix) {
    const auto* held = affix.if_string();
    if (affix.is_undefined()) refuse("UndefinedError: " + affix.why_undefined());
    if (held == nullptr)
      refuse("TypeError: startswith and endswith want a str or a tuple of str, not " +
             std::string(affix.type_name()));
    in.work.spend(1 + held->size() / 64);
    std::string_view wanted = held->bytes();
    return w.inside && (at_end ? part.ends_with(wanted) : part.starts_with(wanted));
  };
  if (const auto* any = given.at(0).if_tuple())
    return var(std::any_of(any->begin(), any->end(), matches));
  return var(matches(given.at(0)));
}

// Where the first (or last) match begins, in characters; -1 when there is none.
template <bool from_right>
std::int64_t find_in(interpreter& in, const var& self, arguments& args, const char* name) {
  parameters given(name, args, {"sub", "start", "end"}, 1);
  const std::string& text = text_of(self).bytes();
  const std::string& needle = given.text(0).bytes();
  in.work.spend_bytes(text.size());
  window w = window_of(in, text, given, 1);
  if (!w.inside) return -1;
  std::string_view part = std::string_view(text).substr(0, w.to);
  std::size_t found = std::string_view::npos;
  if (!from_right) {
    found = find_text(part, needle, w.from);
  } else if (needle.size() <= w.to - w.from) {
    for (std::size_t at = w.to - needle.size() + 1; at-- > w.from;) {
      in.work.spend(1 + needle.size() / 64);
      if (part.compare(at, needle.size(), needle) != 0) continue;
      found = at;
      break;
    }
  }
  if (found == std::string_view::npos) return -1;
  return static_cast<std::int64_t>(character_count(part.substr(0, found)));
}

var find(interpreter& in, const var& self, arguments& args) {
  return var(find_in<false>(in, self, args, "find"));
}
var rfind(interpreter& in, const var& self, arguments& args) {
  return var(find_in<true>(in, self, args, "rfind"));
}
var index(interpreter& in, const var& self, arguments& args) {
  std::int64_t at = find_in<false>(in, self, args, "index");
  if (at < 0) refuse("ValueError: substring not found");
  return var(at);
}
var rindex(interpreter& in, const var& self, arguments& args) {
  std::int64_t at = find_in<true>(in, self, args, "rindex");
  if (at < 0) refuse("ValueError: substring not found");
  return var(at);
}

var count(interpreter& in, const var& self, arguments& args) {
  parameters given("count", args, {"sub", "start", "end"}, 1);
  const std::string& text = text_of(self).bytes();
  const std::string& needle = given.text(0).bytes();
  in.work.spend_bytes(text.size());
  window w = window_of(in, text, given, 1);
  if (!w.inside) return var(std::int64_t{0});
  std::string_view part = std::string_view(text).substr(w.from, w.to - w.from);
  if (needle.empty()) return var::integer(character_count(part) + 1);
  std::int64_t found = 0;
  for (std::size_t at = 0; (at = find_text(part, needle, at)) != std::string_view::npos;
       at += needle.size())
    ++found;
  return var(found);
}

var replace_method(interpreter& in, const var& self, arguments& args) {
  parameters given("replace", args, {"old", "new", "count"}, 2);
  return like(self, replace(in, text_of(self), given.text(0), given.text(1), given.whole(2, -1)));
}

var join_method(interpreter& in, const var& self, arguments& args) {
  parameters given("join", args, {"iterable"}, 1);
  auto items = items_of(in, given.at(0));
  for (std::size_t i = 0; i < items.size(); ++i)
    if (!items[i].is_string())
      refuse("TypeError: sequence item " + std::to_string(i) + ": expected str instance, " +
             items[i].type_name() + " found");
  return like(self, join(in, text_of(self), items));
}

var format_method(interpreter& in, const var& self, arguments& args) {
  return like(self, format_braces(in, text_of(self), args));
}

var format_map(interpreter& in, const var& self, arguments& args) {
  parameters given("format_map", args, {"mapping"}, 1);
  const auto* dict = given.at(0).if_dict();
  if (dict == nullptr) refuse("TypeError: format_map() wants a mapping");
  arguments named;
  for (const auto& [key, held] : dict->members())
    if (const auto* name = key.if_string()) named.named.emplace_back(name->bytes(), held);
  in.work.spend(2 * named.named.size());
  return like(self, format_braces(in, text_of(self), named));
}

template <int side>  // -1: text at the left, 0: in the middle, 1: at the right
var justify(interpreter& in, const var& self, arguments& args) {
  parameters given("justify", args, {"width", "fillchar"}, 1);
  traced_text fill = given.has(1) ? given.text(1) : traced_text(" ", true);
  if (character_count(fill.bytes()) != 1)
    refuse("TypeError: The fill character must be exactly one character long");
  std::int64_t width = given.whole(0, 0);
  std::int64_t room = width - static_cast<std::int64_t>(character_count(text_of(self).bytes()));
  if (room <= 0) return self;
  std::int64_t left = side > 0 ? room : side < 0 ? 0 : room / 2 + (room & width & 1);
  return like(self, pad(in.work, text_of(self), left, room - left, fill.bytes(), fill.trusted()));
}

var zfill(interpreter& in, const var& self, arguments& args) {
  parameters given("zfill", args, {"width"}, 1);
  const traced_text& text = text_of(self);
  std::int64_t room = given.whole(0, 0) - static_cast<std::int64_t>(character_count(text.bytes()));
  if (room <= 0) return self;
  bool sign = !text.empty() && (text.bytes()[0] == '-' || text.bytes()[0] == '+');
  traced_text out = text.slice(0, sign ? 1 : 0);
  out.append(pad(in.work, text.slice(sign ? 1 : 0, text.size()), room, 0, "0"));
  return like(self, std::move(out));
}

template <bool from_right>
var partition(interpreter& in, const var& self, arguments& args) {
  parameters given("partition", args, {"sep"}, 1);
  const traced_text& text = text_of(self);
  const traced_text& separator = given.text(0);
  if (separator.empty()) refuse("ValueError: empty separator");
  in.work.spend_bytes(text.size());
  auto parts = split_at(in.work, text.bytes(), separator.bytes(), 1, from_right);
  auto part = [&](std::size_t i) { return like(self, text.slice(parts[i].from, parts[i].to)); };
  if (parts.size() == 2)
    return var::tuple({part(0), like(self, text.slice(parts[0].to, parts[1].from)), part(1)});
  var none = like(self, {});
  return from_right ? var::tuple({none, none, self}) : var::tuple({self, none, none});
}

var remove_prefix(interpreter& in, const var& self, arguments& args) {
  parameters given("removeprefix", args, {"prefix"}, 1);
  const traced_text& text = text_of(self);
  in.work.spend_bytes(text.size());
  if (!std::string_view(text.bytes()).starts_with(given.text(0).bytes())) return self;
  return like(self, text.slice(given.text(0).size(), text.size()));
}

var remove_suffix(interpreter& in, const var& self, arguments& args) {
  parameters given("removesuffix", args, {"suffix"}, 1);
  const traced_text& text = text_of(self);
  in.work.spend_bytes(text.size());
  if (!std::string_view(text.bytes()).ends_with(given.text(0).bytes())) return self;
  return like(self, text.slice(0, text.size() - given.text(0).size()));
}

var expand_tabs(interpreter& in, const var& self, arguments& args) {
  parameters given("expandtabs", args, {"tabsize"});
  std::int64_t size = given.whole(0, 8);
  const traced_text& text = text_of(self);
  in.work.spend_bytes(text.size());
  traced_text out;
  std::int64_t column = 0;
  for (std::size_t i = 0; i < text.size();) {
    character c = character_at(text.bytes(), i);
    if (c.code == '\t') {
      std::int64_t room = size > 0 ? size - column % size : 0;
      out.append(repeat(in.work, {" ", true}, room));
      column += room;
    } else {
      out.append(text.slice(i, i + c.bytes));
      column = c.code == '\n' || c.code == '\r' ? 0 : column + 1;
    }
    if (out.size() > meter::text_bytes_max) in.work.spend_bytes(out.size());
    i += c.bytes;
  }
  return like(self, std::move(out));
}

template <bool (*holds)(char32_t)>
var all_are(interpreter& in, const var& self, arguments& args) {
  parameters("is", args, {});
  const std::string& text = text_of(self).bytes();
  in.work.spend_bytes(text.size());
  for (std::size_t i = 0; i < text.size();) {
    character c = character_at(text, i);
    if (!holds(c.code)) return var(false);
    i += c.bytes;
  }
  return var(!text.empty());
}

bool alphabetic(char32_t c) { return u_isalpha(static_cast<UChar32>(c)) != 0; }
auto numeric_type(char32_t c) {
  return u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_NUMERIC_TYPE);
}
bool decimal(char32_t c) { return numeric_type(c) == U_NT_DECIMAL; }
bool digit(char32_t c) { return decimal(c) || numeric_type(c) == U_NT_DIGIT; }
bool numeric(char32_t c) { return numeric_type(c) != U_NT_NONE; }
bool alphanumeric(char32_t c) { return alphabetic(c) || numeric(c); }

template <const char* test>
var through_test(interpreter& in, const var& self, arguments& args) {
  return var(find_test(test)(in, self, args));
}
constexpr char lower_test[] = "lower";
constexpr char upper_test[] = "upper";

var is_title_cased(interpreter& in, const var& self, arguments& args) {
  parameters("istitle", args, {});
  const std::string& text = text_of(self).bytes();
  in.work.spend_bytes(text.size());
  bool after_cased = false;
  bool any = false;
  for (std::size_t i = 0; i < text.size();) {
    character c = character_at(text, i);
    bool big = is_upper(c.code) || is_title(c.code);
    if (big ? after_cased : is_lower(c.code) && !after_cased) return var(false);
    after_cased = big || is_lower(c.code);
    any = any || after_cased;
    i += c.bytes;
  }
  return var(any);
}

var is_ascii_method(interpreter& in, const var& self, arguments& args) {
  parameters("isascii", args, {});
  in.work.spend_bytes(text_of(self).size());
  return var(is_ascii(text_of(self).bytes()));
}

var is_printable_method(interpreter& in, const var& self, arguments& args) {
  if (text_of(self).empty()) return var(true);
  return all_are<is_printable>(in, self, args);
}

var is_identifier(interpreter& in, const var& self, arguments& args) {
  parameters("isidentifier", args, {});
  const std::string& text = text_of(self).bytes();
  in.work.spend_bytes(text.size());
  for (std::size_t i = 0; i < text.size();) {
    character c = character_at(text, i);
    auto point = static_cast<UChar32>(c.code);
    bool starts = c.code == '_' || u_hasBinaryProperty(point, UCHAR_XID_START);
    if (!starts && (i == 0 || !u_hasBinaryProperty(point, UCHAR_XID_CONTINUE))) return var(false);
    i += c.bytes;
  }
  return var(!text.empty());
}

// --- lists and tuples

var count_items(interpreter& in, const var& self, arguments& args) {
  parameters given("count", args, {"value"}, 1);
  std::int64_t found = 0;
  for (const var& item : *self.if_sequence())
    if (equal(in.work, item, given.at(0))) ++found;
  return var(found);
}

var index_of(interpreter& in, const var& self, arguments& args) {
  parameters given("index", args, {"value", "start", "stop"}, 1);
  const auto& items = *self.if_sequence();
  auto size = static_cast<std::int64_t>(items.size());
  auto bound = [&](std::size_t i, std::int64_t fallback) {
    std::int64_t n = given.whole(i, fallback);
    return std::clamp<std::int64_t>(n < 0 ? n + size : n, 0, size);
  };
  std::int64_t stop = bound(2, size);
  for (std::int64_t i = bound(1, 0); i < stop; ++i)
    if (equal(in.work, items[static_cast<std::size_t>(i)], given.at(0))) return var(i);
  refuse("ValueError: " + to_repr(in.work, given.at(0)).bytes() + " is not in " + self.type_name());
}

var copy(interpreter&, const var& self, arguments& args) {
  parameters("copy", args, {});
  return self;  // nothing can change it
}

// --- dicts

var get(interpreter& in, const var& self, arguments& args) {
  parameters given("get", args, {"key", "default"}, 1);
  if (const var* held = self.if_dict()->find(in.work, given.at(0))) return *held;
  return given.has(1) ? given.at(1) : var();
}

template <dict_view::kind kind>
var view(interpreter& in, const var& self, arguments& args) {
  parameters("view", args, {});
  in.work.spend(8);
  return var(std::shared_ptr<object>(std::make_shared<dict_view>(self, kind)));
}

const std::map<std::string_view, method>& string_methods() {
  static const std::map<std::string_view, method> table = {
      {"strip", strip<true, true>},
      {"lstrip", strip<true, false>},
      {"rstrip", strip<false, true>},
      {"upper", cased<case_change::upper>},
      {"lower", cased<case_change::lower>},
      {"title", cased<case_change::title>},
      {"capitalize", cased<case_change::capitalize>},
      {"swapcase", cased<case_change::swap>},
      {"casefold", cased<case_change::fold>},
      {"split", split<false>},
      {"rsplit", split<true>},
      {"splitlines", splitlines},
      {"startswith", has_affix<false>},
      {"endswith", has_affix<true>},
      {"find", find},
      {"rfind", rfind},
      {"index", index},
      {"rindex", rindex},
      {"count", count},
      {"replace", replace_method},
      {"join", join_method},
      {"format", format_method},
      {"format_map", format_map},
      {"ljust", justify<-1>},
      {"center", justify<0>},
      {"rjust", justify<1>},
      {"zfill", zfill},
      {"partition", partition<false>},
      {"rpartition", partition<true>},
      {"removeprefix", remove_prefix},
      {"removesuffix", remove_suffix},
      {"expandtabs", expand_tabs},
      {"isalpha", all_are<alphabetic>},
      {"isdecimal", all_are<decimal>},
      {"isdigit", all_are<digit>},
      {"isnumeric", all_are<numeric>},
      {"isalnum", all_are<alphanumeric>},
      {"isspace", all_are<is_space>},
      {"islower", through_test<lower_test>},
      {"isupper", through_test<upper_test>},
      {"istitle", is_title_cased},
      {"isascii", is_ascii_method},
      {"isprintable", is_printable_method},
      {"isidentifier", is_identifier},
  };
  return table;
}

const std::map<std::string_view, method>& sequence_methods() {
  static const std::map<std::string_view, method> table = {
      {"count", count_items}, {"index", index_of}, {"copy", copy}};
  return table;
}

const std::map<std::string_view, method>& dict_methods() {
  static const std::map<std::string_view, method> table = {
      {"get", get},
      {"copy", copy},
      {"keys", view<dict_view::kind::keys>},
      {"values", view<dict_view::kind::values>},
      {"items", view<dict_view::kind::items>},
  };
  return table;
}

bool changes(const var& self, std::string_view name) {
  constexpr std::string_view of_lists[] = {"append", "clear", "pop",    "reverse",
                                           "insert", "sort",  "extend", "remove"};
  constexpr std::string_view of_dicts[] = {"clear", "pop", "popitem", "setdefault", "update"};
  if (self.if_list())
    return std::find(std::begin(of_lists), std::end(of_lists), name) != std::end(of_lists);
  if (self.if_dict())
    return std::find(std::begin(of_dicts), std::end(of_dicts), name) != std::end(of_dicts);
  return false;
}

}  // namespace

std::optional<var> find_method(const var& self, std::string_view name) {
  if (changes(self, name))
    return var::undefined("access to attribute '" + std::string(name) + "' of '" +
                          self.type_name() + "' object is unsafe.");
  const std::map<std::string_view, method>* table = nullptr;
  if (self.is_string()) table = &string_methods();
  if (self.if_sequence()) table = &sequence_methods();
  if (self.if_dict()) table = &dict_methods();
  if (table == nullptr) return std::nullopt;
  auto found = table->find(name);
  if (found == table->end() || (self.if_tuple() && name == "copy")) return std::nullopt;
  method run = found->second;
  return make_function(
      std::string(name),
      [self, run](interpreter& in, arguments& args) { return run(in, self, args); },
      self.depth() + 1);
}

}  // namespace tandem::text::jinja
