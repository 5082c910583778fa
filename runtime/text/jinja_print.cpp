// How values print: Python's str() and repr(), character for character.
#include "runtime/text/jinja_value.hpp"

#include <charconv>
#include <cmath>

namespace tandem::text::jinja {

std::string double_repr(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  char buffer[64];
  // The shortest digits that read back as the same double; then Python's choice of notation.
  auto scientific = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific);
  std::string_view text(buffer, static_cast<std::size_t>(scientific.ptr - buffer));
  std::size_t e = text.find('e');
  int exponent = 0;
  std::size_t digits = text[e + 1] == '+' ? e + 2 : e + 1;
  std::from_chars(text.data() + digits, text.data() + text.size(), exponent);
  if (exponent < -4 || exponent >= 16) return std::string(text);
  auto fixed = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::fixed);
  std::string out(buffer, fixed.ptr);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

namespace {

void append_hex(std::string& out, char32_t code, int digits) {
  constexpr char hex[] = "0123456789abcdef";
  for (int shift = (digits - 1) * 4; shift >= 0; shift -= 4) out += hex[(code >> shift) & 15];
}

void append_escaped(std::string& out, std::string_view text, char quote) {
  for (std::size_t i = 0; i < text.size();) {
    character c = character_at(text, i);
    if (c.code == static_cast<unsigned char>(quote) || c.code == '\\') {
      out += '\\';
      out += text[i];
    } else if (c.code == '\n') {
      out += "\\n";
    } else if (c.code == '\r') {
      out += "\\r";
    } else if (c.code == '\t') {
      out += "\\t";
    } else if (is_printable(c.code)) {
      out += text.substr(i, c.bytes);
    } else if (c.code < 0x100) {
      out += "\\x";
      append_hex(out, c.code, 2);
    } else if (c.code < 0x10000) {
      out += "\\u";
      append_hex(out, c.code, 4);
    } else {
      out += "\\U";
      append_hex(out, c.code, 8);
    }
    i += c.bytes;
  }
}

char quote_for(std::string_view text) {
  bool single = text.find('\'') != std::string_view::npos;
  return single && text.find('"') == std::string_view::npos ? '"' : '\'';
}

traced_text repr_of_string(meter& m, const traced_text& text) {
  m.spend_bytes(text.size());
  char quote = quote_for(text.bytes());
  traced_text out(std::string(1, quote), true);
  text.for_each_run([&](std::string_view run, bool trusted) {
    std::string escaped;
    append_escaped(escaped, run, quote);
    out.append(escaped, trusted);
  });
  out.append(std::string_view(&quote, 1), true);
  return out;
}

void append_items(meter& m, traced_text& out, const std::vector<var>& items, int depth) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.append(", ", true);
    out.append(to_repr(m, items[i], depth));
    m.spend_bytes(out.size() > meter::text_bytes_max ? out.size() : 0);
  }
}

}  // namespace

std::string string_repr(std::string_view text) {
  char quote = quote_for(text);
  std::string out(1, quote);
  append_escaped(out, text, quote);
  return out + quote;
}

traced_text to_repr(meter& m, const var& v, int depth) {
  if (depth > meter::nesting_max) refuse("values nested too deep to print");
  m.spend(1);
  if (v.is_undefined()) return {"Undefined", true};
  if (v.is_none()) return {"None", true};
  if (const auto* b = v.if_bool()) return {*b ? "True" : "False", true};
  if (const auto* i = v.if_int()) return {std::to_string(*i), true};
  if (const auto* d = v.if_double()) return {double_repr(*d), true};
  if (const auto* text = v.if_string()) {
    if (!v.is_markup()) return repr_of_string(m, *text);
    traced_text out("Markup(", true);
    out.append(repr_of_string(m, *text));
    out.append(")", true);
    return out;
  }
  traced_text out;
  if (const auto* list = v.if_list()) {
    out.append("[", true);
    append_items(m, out, *list, depth + 1);
    out.append("]", true);
  } else if (const auto* tuple = v.if_tuple()) {
    out.append("(", true);
    append_items(m, out, *tuple, depth + 1);
    out.append(tuple->size() == 1 ? ",)" : ")", true);
  } else if (const auto* dict = v.if_dict()) {
    out.append("{", true);
    bool first = true;
    for (const auto& [key, held] : dict->members()) {
      if (!first) out.append(", ", true);
      first = false;
      out.append(to_repr(m, key, depth + 1));
      out.append(": ", true);
      out.append(to_repr(m, held, depth + 1));
      m.spend_bytes(out.size() > meter::text_bytes_max ? out.size() : 0);
    }
    out.append("}", true);
  } else {
    return v.if_object()->repr(m, depth + 1);
  }
  m.spend_bytes(out.size());
  return out;
}

traced_text to_text(meter& m, const var& v) {
  if (v.is_undefined()) return {};
  if (const auto* text = v.if_string()) return *text;
  return to_repr(m, v);
}

}  // namespace tandem::text::jinja
