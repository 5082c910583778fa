// Python's two ways to put values into text: "%s" % x, and "{}".format(x).
#include "runtime/text/jinja_library.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace tandem::text::jinja {
namespace {

constexpr std::int64_t width_max = 1 << 20;

struct layout {
  std::string fill = " ";
  char align = 0;  // < > ^ = ; 0: the type's own
  char sign = '-';
  bool alternate = false;
  char grouping = 0;
  std::int64_t width = 0;
  std::int64_t precision = -1;
  char type = 0;
};

std::string with_groups(const std::string& digits, char separator, std::size_t size) {
  std::string out;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % size == 0) out += separator;
    out += digits[i];
  }
  return out;
}

std::string sign_of(bool negative, char sign) {
  return negative ? "-" : sign == '+' ? "+" : sign == ' ' ? " " : "";
}

traced_text laid_out(meter& m, const traced_text& body, const layout& l, char own_align,
                     std::size_t sign_bytes = 0) {
  auto count = static_cast<std::int64_t>(character_count(body.bytes()));
  std::int64_t room = l.width - count;
  if (room <= 0) return body;
  char align = l.align != 0 ? l.align : own_align;
  if (align == '<') return pad(m, body, 0, room, l.fill);
  if (align == '>') return pad(m, body, room, 0, l.fill);
  if (align == '^') return pad(m, body, room / 2, room - room / 2, l.fill);
  traced_text out = body.slice(0, sign_bytes);
  out.append(pad(m, body.slice(sign_bytes, body.size()), room, 0, l.fill));
  return out;
}

std::string in_base(std::uint64_t n, int base, bool upper) {
  char buffer[72];
  auto end = std::to_chars(buffer, buffer + sizeof buffer, n, base).ptr;
  std::string out(buffer, end);
  if (upper) std::transform(out.begin(), out.end(), out.begin(), ::toupper);
  return out;
}

std::uint64_t magnitude(std::int64_t i) {
  return i < 0 ? ~static_cast<std::uint64_t>(i) + 1 : static_cast<std::uint64_t>(i);
}

std::string printed_double(double d, char type, std::int64_t precision, bool alternate) {
  char spec[16];
  std::snprintf(spec, sizeof spec, "%%%s.%dl%c", alternate ? "#" : "", static_cast<int>(precision),
                type);
  std::string out(512 + static_cast<std::size_t>(precision), '\0');
  out.resize(static_cast<std::size_t>(std::snprintf(out.data(), out.size(), spec, d)));
  return out;
}

void check(std::int64_t n, const char* what) {
  if (n > width_max) refuse("ValueError: a format's " + std::string(what) + " is too large");
}

// --- "%..."

class percent_formatter {
 public:
  percent_formatter(interpreter& in, const traced_text& format, const var& values)
      : in_(in), format_(format), values_(values) {}

  traced_text run() {
    const std::string& text = format_.bytes();
    in_.work.spend_bytes(text.size());
    traced_text out;
    for (std::size_t done = 0;;) {
      std::size_t percent = text.find('%', done);
      out.append(format_.slice(done, std::min(percent, text.size())));
      if (percent == std::string::npos) break;
      at_ = percent + 1;
      out.append(directive());
      in_.work.spend(1);
      if (out.size() > meter::text_bytes_max) in_.work.spend_bytes(out.size());
      done = at_;
    }
    bool subscriptable = values_.is_undefined() || values_.if_dict() || values_.if_list() ||
                         (values_.if_object() && values_.if_object()->subscriptable());
    const auto* tuple = values_.if_tuple();
    bool leftover = tuple ? used_ < tuple->size() : used_ == 0 && !subscriptable;
    if (!by_name_ && leftover)
      refuse("TypeError: not all arguments converted during string formatting");
    return out;
  }

 private:
  char peek() const { return at_ < format_.size() ? format_.bytes()[at_] : '\0'; }

  var next_value() {
    if (by_name_) return named_;
    if (const auto* tuple = values_.if_tuple()) {
      if (used_ >= tuple->size()) refuse("TypeError: not enough arguments for format string");
      return (*tuple)[used_++];
    }
    if (used_++ > 0) refuse("TypeError: not enough arguments for format string");
    return values_;
  }

  std::int64_t number_or_star() {
    if (peek() == '*') {
      ++at_;
      auto n = next_value().whole();
      if (!n) refuse("TypeError: * wants int");
      return *n;
    }
    std::int64_t n = 0;
    while (peek() >= '0' && peek() <= '9') {
      n = n * 10 + (format_.bytes()[at_++] - '0');
      check(n, "width");
    }
    return n;
  }

  traced_text directive() {
    if (peek() == '(') {
      std::size_t close = format_.bytes().find(')', at_);
      if (close == std::string::npos) refuse("ValueError: incomplete format key");
      const auto* dict = values_.if_dict();
      if (dict == nullptr) refuse("TypeError: format requires a mapping");
      std::string key = format_.bytes().substr(at_ + 1, close - at_ - 1);
      const var* held = dict->find(key);
      if (held == nullptr) refuse("KeyError: " + string_repr(key));
      named_ = *held;
      by_name_ = true;
      at_ = close + 1;
    }
    layout l;
    bool zero = false;
    bool left = false;
    for (;; ++at_) {
      char c = peek();
      if (c == '-')
        left = true;
      else if (c == '+')
        l.sign = '+';
      else if (c == ' ')
        l.sign = l.sign == '+' ? '+' : ' ';
      else if (c == '#')
        l.alternate = true;
      else if (c == '0')
        zero = true;
      else
        break;
    }
    l.width = number_or_star();
    if (l.width < 0) {
      left = true;
      l.width = -l.width;
    }
    check(l.width, "width");
    if (peek() == '.') {
      ++at_;
      l.precision = std::max<std::int64_t>(number_or_star(), 0);
      check(l.precision, "precision");
    }
    while (peek() == 'l' || peek() == 'h' || peek() == 'L') ++at_;
    if (at_ >= format_.size()) refuse("ValueError: incomplete format");
    l.type = peek();
    ++at_;
    l.align = left ? '<' : 0;
    if (l.type == '%') return {"%", true};
    bool text = l.type == 's' || l.type == 'r' || l.type == 'a' || l.type == 'c';
    if (zero && !left && !text) {
      l.fill = "0";
      l.align = '=';
    }
    return text ? textual(l) : numeric(l);
  }

  traced_text textual(const layout& l) {
    var v = next_value();
    traced_text body;
    if (l.type == 'c') {
      if (auto code = v.whole()) {
        if (*code < 0 || *code > 0x10FFFF) refuse("OverflowError: %c arg not in range(0x110000)");
        std::string one;
        append_utf8(one, static_cast<char32_t>(*code));
        body = {one, false};
      } else if (v.is_string() && character_count(v.if_string()->bytes()) == 1) {
        body = *v.if_string();
      } else {
        refuse("TypeError: %c requires int or char");
      }
    } else {
      body = l.type == 's' ? to_text(in_.work, v) : to_repr(in_.work, v);
    }
    if (l.precision >= 0) {
      std::size_t cut = 0;
      for (std::int64_t i = 0; i < l.precision && cut < body.size(); ++i)
        cut += character_at(body.bytes(), cut).bytes;
      body = body.slice(0, cut);
    }
    return laid_out(in_.work, body, l, '>');
  }

  traced_text numeric(const layout& l) {
    var v = next_value();
    if (v.is_undefined()) refuse("UndefinedError: " + v.why_undefined());
    constexpr std::string_view whole_types = "diuxXo";
    constexpr std::string_view real_types = "eEfFgG";
    bool whole = whole_types.find(l.type) != std::string_view::npos;
    if (!whole && real_types.find(l.type) == std::string_view::npos)
      refuse("ValueError: unsupported format character '" + std::string(1, l.type) + "'");
    auto number = v.number();
    if (!number)
      refuse(whole ? "TypeError: %" + std::string(1, l.type) +
                         " format: a number is required, not " + v.type_name()
                   : "TypeError: must be real number, not " + std::string(v.type_name()));
    std::string body;
    bool negative = false;
    if (whole) {
      bool decimal = l.type == 'd' || l.type == 'i' || l.type == 'u';
      if (!v.whole() && !decimal)
        refuse("TypeError: %" + std::string(1, l.type) + " format: an integer is required, not " +
               v.type_name());
      if (!v.whole() && !(std::fabs(*number) < 9e18)) refuse("a whole number does not fit 64 bits");
      std::int64_t i = v.whole() ? *v.whole() : static_cast<std::int64_t>(*number);
      negative = i < 0;
      body = in_base(magnitude(i), decimal ? 10 : l.type == 'o' ? 8 : 16, l.type == 'X');
      if (static_cast<std::int64_t>(body.size()) < l.precision)
        body.insert(0, static_cast<std::size_t>(l.precision) - body.size(), '0');
      if (l.alternate && !decimal)
        body = (l.type == 'o' ? "0o" : l.type == 'x' ? "0x" : "0X") + body;
    } else {
      negative = std::signbit(*number) && !std::isnan(*number);
      body = printed_double(std::fabs(*number), l.type, l.precision < 0 ? 6 : l.precision,
                            l.alternate);
    }
    std::string sign = sign_of(negative, l.sign);
    in_.work.spend_bytes(body.size());
    std::size_t sign_bytes = sign.size();
    return laid_out(in_.work, {sign + body, true}, l, '>', sign_bytes);
  }

  interpreter& in_;
  const traced_text& format_;
  const var& values_;
  std::size_t at_ = 0;
  std::size_t used_ = 0;
  bool by_name_ = false;
  var named_;
};

// --- "{...}"

layout parse_layout(std::string_view spec) {
  layout l;
  std::size_t at = 0;
  auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  auto peek = [&] { return at < spec.size() ? spec[at] : '\0'; };
  std::size_t first = character_at(spec, 0).bytes;
  if (first > 0 && first < spec.size() && is_align(spec[first])) {
    l.fill = std::string(spec.substr(0, first));
    l.align = spec[first];
    at = first + 1;
  } else if (is_align(peek())) {
    l.align = spec[at++];
  }
  if (peek() == '+' || peek() == '-' || peek() == ' ') l.sign = spec[at++];
  if (peek() == '#') {
    l.alternate = true;
    ++at;
  }
  if (peek() == '0') {
    if (l.align == 0) {
      l.fill = "0";
      l.align = '=';
    }
    ++at;
  }
  auto number = [&] {
    std::int64_t n = 0;
    while (peek() >= '0' && peek() <= '9') {
      n = n * 10 + (spec[at++] - '0');
      check(n, "width");
    }
    return n;
  };
  l.width = number();
  if (peek() == ',' || peek() == '_') l.grouping = spec[at++];
  if (peek() == '.') {
    ++at;
    if (peek() < '0' || peek() > '9') refuse("ValueError: Format specifier missing precision");
    l.precision = number();
  }
  if (at < spec.size()) l.type = spec[at++];
  if (at < spec.size()) refuse("ValueError: Invalid format specifier " + string_repr(spec));
  return l;
}

class brace_formatter {
 public:
  brace_formatter(interpreter& in, const arguments& args) : in_(in), args_(args) {}

  traced_text run(const traced_text& format, int depth) {
    if (depth > 1) refuse("ValueError: Max string recursion exceeded");
    const std::string& text = format.bytes();
    in_.work.spend_bytes(text.size());
    traced_text out;
    for (std::size_t i = 0; i < text.size();) {
      std::size_t brace = text.find_first_of("{}", i);
      out.append(format.slice(i, std::min(brace, text.size())));
      if (brace == std::string::npos) break;
      if (brace + 1 < text.size() && text[brace + 1] == text[brace]) {
        out.append(format.slice(brace, brace + 1));
        i = brace + 2;
        continue;
      }
      if (text[brace] == '}') refuse("ValueError: Single '}' encountered in format string");
      std::size_t end = closing(text, brace);
      out.append(field(format.slice(brace + 1, end), depth));
      in_.work.spend(1);
      if (out.size() > meter::text_bytes_max) in_.work.spend_bytes(out.size());
      i = end + 1;
    }
    return out;
  }

 private:
  static std::size_t closing(const std::string& text, std::size_t open) {
    int depth = 0;
    bool index = false;  // inside [...], where a brace is text
    for (std::size_t i = open; i < text.size(); ++i) {
      if (text[i] == '[' && depth == 1) index = true;
      if (text[i] == ']') index = false;
      if (index) continue;
      if (text[i] == '{') ++depth;
      if (text[i] == '}' && --depth == 0) return i;
    }
    refuse(open + 1 == text.size() ? "ValueError: Single '{' encountered in format string"
                                   : "ValueError: expected '}' before end of string");
  }

  traced_text field(const traced_text& inside, int depth) {
    const std::string& text = inside.bytes();
    std::size_t name_end = 0;
    for (bool index = false; name_end < text.size(); ++name_end) {
      char c = text[name_end];
      if (c == '[') index = true;
      if (c == ']') index = false;
      if (!index && (c == ':' || c == '!')) break;
    }
    std::size_t at = name_end;
    char conversion = 0;
    if (at < text.size() && text[at] == '!') {
      if (at + 1 >= text.size()) refuse("ValueError: end of string while looking for conversion");
      conversion = text[at + 1];
      at += 2;
      if (at < text.size() && text[at] != ':')
        refuse("ValueError: expected ':' after conversion specifier");
    }
    traced_text spec;
    var v = value_of(std::string_view(text).substr(0, name_end));
    if (at < text.size()) spec = run(inside.slice(at + 1, text.size()), depth + 1);
    if (conversion == 'r' || conversion == 'a')
      v = var(to_repr(in_.work, v));
    else if (conversion == 's')
      v = var(to_text(in_.work, v));
    else if (conversion != 0)
      refuse("ValueError: Unknown conversion specifier " + std::string(1, conversion));
    return shown(v, spec.bytes());
  }

  var value_of(std::string_view name) {
    std::size_t end = name.find_first_of(".[");
    var v = argument(name.substr(0, end));
    std::string_view rest = end == std::string_view::npos ? std::string_view() : name.substr(end);
    while (!rest.empty()) {
      if (rest[0] == '.') {
        std::size_t stop = rest.find_first_of(".[", 1);
        std::string_view part = rest.substr(1, stop == std::string_view::npos ? stop : stop - 1);
        if (part.empty()) refuse("ValueError: Empty attribute in format string");
        v = attribute(in_, v, part);
        rest = stop == std::string_view::npos ? std::string_view() : rest.substr(stop);
      } else {
        std::size_t stop = rest.find(']');
        if (rest[0] != '[' || stop == std::string_view::npos || stop == 1)
          refuse("ValueError: Missing ']' in format string");
        std::string_view part = rest.substr(1, stop - 1);
        bool digits = part.find_first_not_of("0123456789") == std::string_view::npos;
        v = item(in_, v, digits ? var(*parse_whole(part, 10)) : var::literal(part));
        rest = rest.substr(stop + 1);
      }
    }
    return v;
  }

  var argument(std::string_view name) {
    bool digits = name.find_first_not_of("0123456789") == std::string_view::npos;
    if (!digits) {
      for (const auto& [known, v] : args_.named)
        if (known == name) return v;
      refuse("KeyError: " + string_repr(name));
    }
    bool automatic = name.empty();
    if (automatic ? manual_ : next_ > 0)
      refuse(
          "ValueError: cannot switch between manual field specification and automatic field "
          "numbering");
    manual_ = manual_ || !automatic;
    std::size_t index =
        automatic ? next_++ : static_cast<std::size_t>(parse_whole(name, 10).value_or(0));
    if (index >= args_.positional.size())
      refuse("IndexError: Replacement index " + std::to_string(index) +
             " out of range for positional args tuple");
    return args_.positional[index];
  }

  traced_text shown(const var& v, std::string_view spec) {
    if (spec.empty()) return to_text(in_.work, v);
    bool plain = v.is_string() || v.number().has_value();
    if (!plain)
      refuse("TypeError: unsupported format string passed to " + std::string(v.type_name()) +
             ".__format__");
    layout l = parse_layout(spec);
    if (v.is_string()) return text_shown(*v.if_string(), l);
    constexpr std::string_view real_types = "eEfFgG%";
    bool as_real = v.if_double() != nullptr || real_types.find(l.type) != std::string_view::npos;
    return as_real && (l.type != 0 || v.if_double()) ? real_shown(v, l) : whole_shown(v, l);
  }

  traced_text text_shown(const traced_text& text, const layout& l) {
    if (l.type != 0 && l.type != 's')
      refuse("ValueError: Unknown format code '" + std::string(1, l.type) +
             "' for object of type 'str'");
    if (l.align == '=' && l.fill != "0")
      refuse("ValueError: '=' alignment not allowed in string format specifier");
    traced_text body = text;
    if (l.precision >= 0) {
      std::size_t cut = 0;
      for (std::int64_t i = 0; i < l.precision && cut < text.size(); ++i)
        cut += character_at(text.bytes(), cut).bytes;
      body = text.slice(0, cut);
    }
    layout as_text = l;
    if (l.align == '=') as_text.align = '<';
    return laid_out(in_.work, body, as_text, '<');
  }

  traced_text numbered(bool negative, std::string body, const layout& l) {
    if (l.grouping != 0) {
      std::size_t whole = body.find_first_not_of("0123456789abcdefABCDEF");
      bool based = l.type == 'x' || l.type == 'X' || l.type == 'b' || l.type == 'o';
      if (!based) whole = body.find_first_not_of("0123456789");
      body = with_groups(body.substr(0, whole), l.grouping, based ? 4 : 3) +
             (whole == std::string::npos ? "" : body.substr(whole));
    }
    std::string sign = sign_of(negative, l.sign);
    if (l.alternate && l.type == 'x') sign += "0x";
    if (l.alternate && l.type == 'X') sign += "0X";
    if (l.alternate && l.type == 'o') sign += "0o";
    if (l.alternate && l.type == 'b') sign += "0b";
    in_.work.spend_bytes(body.size());
    std::size_t sign_bytes = sign.size();
    return laid_out(in_.work, {sign + body, true}, l, '>', sign_bytes);
  }

  traced_text whole_shown(const var& v, const layout& l) {
    if (l.precision >= 0) refuse("ValueError: Precision not allowed in integer format specifier");
    std::int64_t i = *v.whole();
    if (l.type == 'c') {
      if (i < 0 || i > 0x10FFFF) refuse("OverflowError: %c arg not in range(0x110000)");
      std::string one;
      append_utf8(one, static_cast<char32_t>(i));
      return laid_out(in_.work, {one, false}, l, '<');
    }
    int base = l.type == 'b' ? 2 : l.type == 'o' ? 8 : l.type == 'x' || l.type == 'X' ? 16 : 10;
    if (base == 10 && l.type != 0 && l.type != 'd' && l.type != 'n')
      refuse("ValueError: Unknown format code '" + std::string(1, l.type) +
             "' for object of type 'int'");
    return numbered(i < 0, in_base(magnitude(i), base, l.type == 'X'), l);
  }

  traced_text real_shown(const var& v, const layout& l) {
    double d = *v.number();
    bool negative = std::signbit(d) && !std::isnan(d);
    double size = std::fabs(d);
    std::string body;
    if (l.type == 0 && l.precision < 0)
      body = double_repr(size);
    else if (l.type == '%')
      body = printed_double(size * 100, 'f', l.precision < 0 ? 6 : l.precision, l.alternate) + "%";
    else if (l.type == 0 || l.type == 'n')
      body = printed_double(size, 'g', l.precision, l.alternate);
    else if (std::string_view("eEfFgG").find(l.type) != std::string_view::npos)
      body = printed_double(size, l.type, l.precision < 0 ? 6 : l.precision, l.alternate);
    else
      refuse("ValueError: Unknown format code '" + std::string(1, l.type) +
             "' for object of type 'float'");
    return numbered(negative, std::move(body), l);
  }

  interpreter& in_;
  const arguments& args_;
  std::size_t next_ = 0;
  bool manual_ = false;
};

}  // namespace

traced_text format_percent(interpreter& in, const traced_text& format, const var& values) {
  return percent_formatter(in, format, values).run();
}

traced_text format_braces(interpreter& in, const traced_text& format, const arguments& args) {
  return brace_formatter(in, args).run(format, 0);
}

}  // namespace tandem::text::jinja
