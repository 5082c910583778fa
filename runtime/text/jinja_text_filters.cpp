// Filters that make text. Each keeps, byte for byte, whose text it was.
#include "runtime/text/jinja_library.hpp"

#include <algorithm>

namespace tandem::text::jinja {
namespace {

var case_filter(interpreter& in, const var& input, case_change how) {
  traced_text text = to_text(in.work, input);
  in.work.spend_bytes(text.size() * 2);
  return var(change_case(text, how), input.is_markup());
}

var upper(interpreter& in, const var& input, arguments& args) {
  parameters("upper", args, {});
  return case_filter(in, input, case_change::upper);
}
var lower(interpreter& in, const var& input, arguments& args) {
  parameters("lower", args, {});
  return case_filter(in, input, case_change::lower);
}
var capitalize(interpreter& in, const var& input, arguments& args) {
  parameters("capitalize", args, {});
  return case_filter(in, input, case_change::capitalize);
}

// Words begin after white space and after one of -({[< .
var title(interpreter& in, const var& input, arguments& args) {
  parameters("title", args, {});
  traced_text text = to_text(in.work, input);
  in.work.spend_bytes(text.size() * 2);
  const std::string& bytes = text.bytes();
  auto splits = [](char32_t c) {
    return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  traced_text out;
  for (std::size_t i = 0; i < bytes.size();) {
    character c = character_at(bytes, i);
    std::size_t end = i + c.bytes;
    if (splits(c.code)) {
      out.append(text.slice(i, end));
    } else {
      out.append(change_case(text.slice(i, end), case_change::upper));
      std::size_t rest = end;
      while (end < bytes.size() && !splits(character_at(bytes, end).code))
        end += character_at(bytes, end).bytes;
      out.append(change_case(text.slice(rest, end), case_change::lower));
    }
    i = end;
  }
  return var(std::move(out));
}

var trim(interpreter& in, const var& input, arguments& args) {
  parameters given("trim", args, {"chars"});
  traced_text text = to_text(in.work, input);
  in.work.spend_bytes(text.size());
  if (!given.none(0) && given.text(0).empty()) return var(std::move(text));
  std::string_view characters = given.none(0) ? std::string_view() : given.text(0).bytes();
  auto kept = strip_range(text.bytes(), characters, true, true);
  return var(text.slice(kept.from, kept.to), input.is_markup());
}

var replace_filter(interpreter& in, const var& input, arguments& args) {
  parameters given("replace", args, {"old", "new", "count"}, 2);
  return var(replace(in, to_text(in.work, input), to_text(in.work, given.at(0)),
                     to_text(in.work, given.at(1)), given.none(2) ? -1 : given.whole(2, -1)));
}

var join_filter(interpreter& in, const var& input, arguments& args) {
  parameters given("join", args, {"d", "attribute"});
  std::vector<var> items = items_of(in, input);
  if (!given.none(1))
    for (var& item : items) item = follow(in, item, given.at(1));
  traced_text separator = given.has(0) ? to_text(in.work, given.at(0)) : traced_text();
  return var(join(in, separator, items));
}

var string_filter(interpreter& in, const var& input, arguments& args) {
  parameters("string", args, {});
  return input.is_string() ? input : var(to_text(in.work, input));
}

var escape(interpreter& in, const var& input, arguments& args) {
  parameters("escape", args, {});
  if (input.is_markup()) return input;
  return var(escape_html(in.work, to_text(in.work, input)), true);
}
var force_escape(interpreter& in, const var& input, arguments& args) {
  parameters("forceescape", args, {});
  return var(escape_html(in.work, to_text(in.work, input)), true);
}
var safe(interpreter& in, const var& input, arguments& args) {
  parameters("safe", args, {});
  return var(to_text(in.work, input), true);
}

var indent(interpreter& in, const var& input, arguments& args) {
  parameters given("indent", args, {"width", "first", "blank"});
  const auto* text = input.if_string();
  if (input.is_undefined()) refuse("UndefinedError: " + input.why_undefined());
  if (text == nullptr)
    refuse("TypeError: indent wants a str, not '" + std::string(input.type_name()) + "'");
  traced_text margin = given.has(0) && given.at(0).is_string()
                           ? given.text(0)
                           : repeat(in.work, {" ", true}, given.whole(0, 4));
  bool first = given.truth(in, 1, false);
  bool blank = given.truth(in, 2, false);
  traced_text whole = *text;
  whole.append("\n", true);  // so that a last newline is an empty line
  in.work.spend_bytes(whole.size());
  traced_text out;
  bool at_first = true;
  for (auto [from, to] : split_lines(whole.bytes(), false)) {
    if (!at_first) out.append("\n", true);
    if (at_first ? first : blank || to > from) out.append(margin);
    out.append(whole.slice(from, to));
    at_first = false;
    in.work.spend(1 + (to - from + margin.size()) / 16);
    if (out.size() > meter::text_bytes_max) in.work.spend_bytes(out.size());
  }
  return var(std::move(out), input.is_markup());
}

// The byte where character `count` begins.
std::size_t offset_of(std::string_view text, std::size_t count) {
  std::size_t offset = 0;
  for (std::size_t i = 0; i < count && offset < text.size(); ++i)
    offset += character_at(text, offset).bytes;
  return offset;
}

var truncate(interpreter& in, const var& input, arguments& args) {
  parameters given("truncate", args, {"length", "killwords", "end", "leeway"});
  traced_text end = given.has(2) ? given.text(2) : traced_text("...", true);
  std::int64_t length = given.whole(0, 255);
  std::int64_t leeway = given.none(3) ? 5 : given.whole(3, 5);
  auto end_count = static_cast<std::int64_t>(character_count(end.bytes()));
  if (length < end_count || leeway < 0)
    refuse("AssertionError: truncate wants a length of at least " + std::to_string(end_count) +
           " and a leeway of at least 0");
  auto count = length_of(in, input);
  if (!count)
    refuse("TypeError: object of type '" + std::string(input.type_name()) + "' has no len()");
  if (static_cast<std::int64_t>(*count) <= length + leeway) return input;
  const auto* text = input.if_string();
  if (text == nullptr)
    refuse("TypeError: truncate wants a str, not '" + std::string(input.type_name()) + "'");
  in.work.spend_bytes(text->size());
  auto cut = offset_of(text->bytes(), static_cast<std::size_t>(length - end_count));
  traced_text out = text->slice(0, cut);
  if (!given.truth(in, 1, false)) {
    std::size_t space = out.bytes().rfind(' ');
    if (space != std::string::npos) out = out.slice(0, space);
  }
  out.append(end);
  return var(std::move(out));
}

var word_count(interpreter& in, const var& input, arguments& args) {
  parameters("wordcount", args, {});
  traced_text text = to_text(in.work, input);
  in.work.spend_bytes(text.size());
  std::int64_t count = 0;
  bool inside = false;
  for (std::size_t i = 0; i < text.size();) {
    character c = character_at(text.bytes(), i);
    bool word = is_word(c.code);
    if (word && !inside) ++count;
    inside = word;
    i += c.bytes;
  }
  return var(count);
}

var center(interpreter& in, const var& input, arguments& args) {
  parameters given("center", args, {"width"});
  traced_text text = to_text(in.work, input);
  std::int64_t width = given.whole(0, 80);
  std::int64_t room = width - static_cast<std::int64_t>(character_count(text.bytes()));
  if (room <= 0) return var(std::move(text));
  std::int64_t left = room / 2 + (room & width & 1);  // where Python puts the odd one
  return var(pad(in.work, text, left, room - left, " "));
}

var format(interpreter& in, const var& input, arguments& args) {
  if (!args.positional.empty() && !args.named.empty())
    refuse("can't handle positional and keyword arguments at the same time");
  traced_text text = to_text(in.work, input);
  if (args.named.empty()) return var(format_percent(in, text, var::tuple(args.positional)));
  auto values = std::make_shared<dictionary>();
  for (const auto& [name, v] : args.named) values->put(in.work, var::literal(name), v);
  return var(format_percent(in, text, var(std::shared_ptr<const dictionary>(values))));
}

// Runs of white space become one space, with none at the ends.
traced_text collapse_space(const traced_text& text) {
  traced_text out;
  bool gap = false;
  for (std::size_t i = 0; i < text.size();) {
    character c = character_at(text.bytes(), i);
    if (is_space(c.code)) {
      gap = !out.empty();
    } else {
      if (gap) out.append(" ", true);
      gap = false;
      out.append(text.slice(i, i + c.bytes));
    }
    i += c.bytes;
  }
  return out;
}

// Takes out every stretch from `open` to the next `close`.
traced_text without(const traced_text& text, std::string_view open, std::string_view close) {
  traced_text out;
  std::size_t done = 0;
  for (;;) {
    std::size_t from = find_text(text.bytes(), open, done);
    std::size_t to = from == std::string::npos ? from : find_text(text.bytes(), close, from);
    if (to == std::string::npos) break;
    out.append(text.slice(done, from));
    done = to + close.size();
  }
  out.append(text.slice(done, text.size()));
  return out;
}

traced_text unescape_html(interpreter& in, traced_text text) {
  struct entity {
    std::string_view name;
    std::string_view is;
  };
  for (auto [name, is] :
       {entity{"&lt;", "<"}, entity{"&gt;", ">"}, entity{"&#34;", "\""}, entity{"&quot;", "\""},
        entity{"&#39;", "'"}, entity{"&nbsp;", "\u00A0"}, entity{"&amp;", "&"}})
    text = replace(in, text, {std::string(name), true}, {std::string(is), text.trusted()}, -1);
  return text;
}

var strip_tags(interpreter& in, const var& input, arguments& args) {
  parameters("striptags", args, {});
  traced_text text = to_text(in.work, input);
  in.work.spend_bytes(4 * text.size());
  text = without(without(text, "<!--", "-->"), "<", ">");
  return var(unescape_html(in, collapse_space(text)));
}

traced_text percent_encoded(meter& m, const traced_text& text, bool query) {
  constexpr char hex[] = "0123456789ABCDEF";
  m.spend_bytes(3 * text.size());
  traced_text out;
  text.for_each_run([&](std::string_view run, bool trusted) {
    std::string encoded;
    for (char c : run) {
      auto byte = static_cast<unsigned char>(c);
      if (std::isalnum(byte) || c == '_' || c == '.' || c == '-' || c == '~' ||
          (c == '/' && !query)) {
        encoded += c;
      } else if (c == ' ' && query) {
        encoded += '+';
      } else {
        encoded += '%';
        encoded += hex[byte >> 4];
        encoded += hex[byte & 15];
      }
    }
    out.append(encoded, trusted);
  });
  return out;
}

var url_encode(interpreter& in, const var& input, arguments& args) {
  parameters("urlencode", args, {});
  bool pairs =
      input.if_dict() != nullptr || input.if_sequence() != nullptr || input.if_object() != nullptr;
  if (!pairs) return var(percent_encoded(in.work, to_text(in.work, input), false));
  std::vector<var> items;
  if (const auto* dict = input.if_dict())
    for (const auto& [key, held] : dict->members()) items.push_back(var::tuple({key, held}));
  else
    items = items_of(in, input);
  traced_text out;
  for (const var& pair : items) {
    auto halves = items_of(in, pair);
    if (halves.size() != 2) refuse("ValueError: urlencode wants pairs");
    if (!out.empty()) out.append("&", true);
    out.append(percent_encoded(in.work, to_text(in.work, halves[0]), true));
    out.append("=", true);
    out.append(percent_encoded(in.work, to_text(in.work, halves[1]), true));
    in.work.spend_bytes(out.size());
  }
  return var(std::move(out));
}

var xml_attributes(interpreter& in, const var& input, arguments& args) {
  parameters given("xmlattr", args, {"autospace"});
  const auto* dict = input.if_dict();
  if (dict == nullptr) refuse("TypeError: xmlattr wants a mapping");
  traced_text out;
  for (const auto& [key, held] : dict->members()) {
    if (held.is_none() || held.is_undefined()) continue;
    traced_text name = to_text(in.work, key);
    if (name.bytes().find_first_of(" \t\n\r\f\v/>=") != std::string::npos)
      refuse("ValueError: Invalid character in attribute name: " + string_repr(name.bytes()));
    if (!out.empty() || given.truth(in, 0, true)) out.append(" ", true);
    out.append(escape_html(in.work, name));
    out.append("=\"", true);
    out.append(held.is_markup() ? *held.if_string() : escape_html(in.work, to_text(in.work, held)));
    out.append("\"", true);
    in.work.spend_bytes(out.size());
  }
  return var(std::move(out));
}

// One paragraph cut into lines of at most `width` characters, as Python's textwrap cuts it:
// at white space and behind hyphens, and inside words that fit no line.
class wrapper {
 public:
  wrapper(std::size_t width, bool break_long, bool break_hyphens)
      : width_(width), break_long_(break_long), break_hyphens_(break_hyphens) {}

  std::vector<traced_text> lines(const traced_text& text) {
    std::vector<traced_text> chunks = chunks_of(text);
    std::reverse(chunks.begin(), chunks.end());
    std::vector<traced_text> out;
    while (!chunks.empty()) {
      if (!out.empty() && blank(chunks.back())) chunks.pop_back();
      std::vector<traced_text> line;
      std::size_t length = 0;
      while (!chunks.empty() && length + count(chunks.back()) <= width_) {
        length += count(chunks.back());
        line.push_back(std::move(chunks.back()));
        chunks.pop_back();
      }
      if (!chunks.empty() && count(chunks.back()) > width_) long_word(chunks, line, length);
      if (!line.empty() && blank(line.back())) line.pop_back();
      if (line.empty()) continue;
      traced_text joined;
      for (const auto& chunk : line) joined.append(chunk);
      out.push_back(std::move(joined));
    }
    return out;
  }

 private:
  static std::size_t count(const traced_text& t) { return character_count(t.bytes()); }
  static bool blank(const traced_text& t) {
    auto kept = strip_range(t.bytes(), {}, true, true);
    return kept.from == kept.to;
  }

  void long_word(std::vector<traced_text>& chunks, std::vector<traced_text>& line,
                 std::size_t length) const {
    if (break_long_) {
      std::size_t room = width_ - length;  // may be 0: then the line ends before the word
      traced_text whole = std::move(chunks.back());
      std::size_t cut = offset_of(whole.bytes(), room);
      std::size_t hyphen = whole.bytes().rfind('-', cut > 0 ? cut - 1 : 0);
      if (break_hyphens_ && count(whole) > room && hyphen != std::string::npos && hyphen > 0 &&
          whole.bytes().find_first_not_of('-') < hyphen)
        cut = hyphen + 1;
      line.push_back(whole.slice(0, cut));
      chunks.back() = whole.slice(cut, whole.size());
      if (chunks.back().empty()) chunks.pop_back();
    } else if (line.empty()) {
      line.push_back(std::move(chunks.back()));
      chunks.pop_back();
    }
  }

  std::vector<traced_text> chunks_of(const traced_text& text) const {
    std::vector<traced_text> chunks;
    std::string_view bytes = text.bytes();
    constexpr std::string_view space = "\t\n\x0b\x0c\r ";
    auto letter = [&](std::size_t i) {
      character c = character_at(bytes, i);
      return c.bytes > 0 && is_word(c.code) && !(c.code >= '0' && c.code <= '9') && c.code != '_';
    };
    std::size_t start = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bool here = space.find(bytes[i]) != std::string_view::npos;
      bool before = i > 0 && space.find(bytes[i - 1]) != std::string_view::npos;
      bool after_hyphen = break_hyphens_ && i >= 3 && bytes[i - 1] == '-' && bytes[i] != '-' &&
                          letter(i) && letter(i - 2) && i - start >= 3;
      if (i > start && (here != before || after_hyphen)) {
        chunks.push_back(text.slice(start, i));
        start = i;
      }
    }
    if (start < bytes.size()) chunks.push_back(text.slice(start, bytes.size()));
    return chunks;
  }

  std::size_t width_;
  bool break_long_;
  bool break_hyphens_;
};

var word_wrap(interpreter& in, const var& input, arguments& args) {
  parameters given("wordwrap", args,
                   {"width", "break_long_words", "wrapstring", "break_on_hyphens"});
  std::int64_t width = given.whole(0, 79);
  if (width <= 0) refuse("ValueError: invalid width " + std::to_string(width) + " (must be > 0)");
  const auto* text = input.if_string();
  if (text == nullptr)
    refuse("TypeError: wordwrap wants a str, not '" + std::string(input.type_name()) + "'");
  in.work.spend_bytes(text->size());
  in.work.spend(text->size());
  wrapper wrap(static_cast<std::size_t>(width), given.truth(in, 1, true), given.truth(in, 3, true));
  std::vector<var> paragraphs;
  traced_text newline = given.none(2) ? traced_text("\n", true) : given.text(2);
  for (auto [from, to] : split_lines(text->bytes(), false)) {
    std::vector<var> lines;
    for (auto& line : wrap.lines(text->slice(from, to))) lines.emplace_back(std::move(line));
    paragraphs.emplace_back(join(in, newline, lines));
  }
  return var(join(in, newline, paragraphs));
}

var tojson(interpreter& in, const var& input, arguments& args) {
  return var(to_json(in, input, args));
}

}  // namespace

std::vector<named_filter> text_filters() {
  return {{"upper", upper},
          {"lower", lower},
          {"capitalize", capitalize},
          {"title", title},
          {"trim", trim},
          {"replace", replace_filter},
          {"join", join_filter},
          {"string", string_filter},
          {"escape", escape},
          {"e", escape},
          {"forceescape", force_escape},
          {"safe", safe},
          {"indent", indent},
          {"truncate", truncate},
          {"wordcount", word_count},
          {"center", center},
          {"format", format},
          {"striptags", strip_tags},
          {"urlencode", url_encode},
          {"xmlattr", xml_attributes},
          {"wordwrap", word_wrap},
          {"tojson", tojson}};
}

}  // namespace tandem::text::jinja
