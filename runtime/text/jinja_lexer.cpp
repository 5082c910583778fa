#include "runtime/text/jinja_lexer.hpp"

#include "runtime/text/jinja_value.hpp"

#include <unicode/uchar.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

namespace tandem::text::jinja {

void refuse_syntax(int line, const std::string& what) {
  refuse("line " + std::to_string(line) + ": " + what, errc::bad_file);
}

std::string describe(const token& t) {
  switch (t.kind) {
    case token_kind::data:
      return "template data";
    case token_kind::variable_begin:
      return "begin of print statement";
    case token_kind::variable_end:
      return "end of print statement";
    case token_kind::block_begin:
      return "begin of statement block";
    case token_kind::block_end:
      return "end of statement block";
    case token_kind::string:
      return "a string";
    case token_kind::integer:
      return "an integer";
    case token_kind::real:
      return "a float";
    case token_kind::end:
      return "end of template";
    default:
      return "'" + t.text + "'";
  }
}

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Only \n, \r\n and \r end lines, each becomes \n; one at the very end of the source is dropped.
std::string with_plain_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

// The escapes of a Python string literal.
class unescaper {
 public:
  unescaper(std::string_view raw, int line) : raw_(raw), line_(line) {}

  std::string run() {
    while (at_ < raw_.size()) {
      char c = raw_[at_++];
      if (c != '\\')
        out_ += c;
      else
        escape();
    }
    return std::move(out_);
  }

 private:
  void escape() {
    if (at_ >= raw_.size()) refuse_syntax(line_, "a string ends in a backslash");
    char c = raw_[at_++];
    constexpr std::string_view from = "\\'\"abfnrtv";
    constexpr std::string_view to = "\\'\"\a\b\f\n\r\t\v";
    if (auto known = from.find(c); known != std::string_view::npos) {
      out_ += to[known];
    } else if (c == '\n') {
      return;  // a continued line
    } else if (c >= '0' && c <= '7') {
      --at_;
      number(8, 1, 3);
    } else if (c == 'x') {
      number(16, 2, 2);
    } else if (c == 'u') {
      number(16, 4, 4);
    } else if (c == 'U') {
      number(16, 8, 8);
    } else if (c == 'N') {
      named();
    } else {
      out_ += '\\';
      out_ += c;
    }
  }

  void number(int base, std::size_t digits_min, std::size_t digits_max) {
    std::size_t end = at_;
    while (end < raw_.size() && end < at_ + digits_max &&
           (base == 8 ? raw_[end] >= '0' && raw_[end] <= '7'
                      : std::isxdigit(static_cast<unsigned char>(raw_[end])) != 0))
      ++end;
    if (end < at_ + digits_min) refuse_syntax(line_, "a truncated \\ escape in a string");
    std::uint32_t code = 0;
    std::from_chars(raw_.data() + at_, raw_.data() + end, code, base);
    at_ = end;
    if (code >= 0xD800 && code <= 0xDBFF) code = with_low_surrogate(code);
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
      refuse_syntax(line_, "a \\ escape in a string names no character");
    append_utf8(out_, code);
  }

  // "\\ud83d" and the "\\ude00" behind it are one character.
  std::uint32_t with_low_surrogate(std::uint32_t high) {
    std::uint32_t low = 0;
    if (raw_.substr(at_, 2) != "\\u" || raw_.size() < at_ + 6) return high;
    auto parsed = std::from_chars(raw_.data() + at_ + 2, raw_.data() + at_ + 6, low, 16);
    if (parsed.ptr != raw_.data() + at_ + 6 || low < 0xDC00 || low > 0xDFFF) return high;
    at_ += 6;
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
  }

  void named() {
    std::size_t close = raw_.find('}', at_);
    if (at_ >= raw_.size() || raw_[at_] != '{' || close == std::string_view::npos)
      refuse_syntax(line_, "a malformed \\N escape in a string");
    std::string name(raw_.substr(at_ + 1, close - at_ - 1));
    UErrorCode status = U_ZERO_ERROR;
    auto code = u_charFromName(U_EXTENDED_CHAR_NAME, name.c_str(), &status);
    if (U_FAILURE(status)) refuse_syntax(line_, "no character is named " + name);
    append_utf8(out_, static_cast<char32_t>(code));
    at_ = close + 1;
  }

  std::string_view raw_;
  int line_;
  std::size_t at_ = 0;
  std::string out_;
};

class lexer {
 public:
  explicit lexer(std::string source) : source_(std::move(source)) {}

  std::vector<token> run() {
    while (at_ < source_.size()) text_until_tag();
    add(token_kind::end);
    return std::move(tokens_);
  }

 private:
  bool looking_at(std::string_view what) const { return rest().substr(0, what.size()) == what; }
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  char peek(std::size_t ahead = 0) const {
    return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0';
  }
  token& add(token_kind kind, std::string text = {}) {
    tokens_.push_back({kind, line_, std::move(text)});
    return tokens_.back();
  }
  // Passes over source, counting its lines.
  void advance_to(std::size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    if (to > at_) after_newline_ = source_[to - 1] == '\n';
    at_ = to;
  }
  void skip_space() {
    std::size_t to = at_;
    for (character c; (c = character_at(source_, to)).bytes > 0 && is_space(c.code);) to += c.bytes;
    advance_to(to);
  }

  void text_until_tag() {
    std::size_t start = at_;
    std::size_t tag = at_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        tag = source_.size();
        break;
      }
      char second = source_[tag + 1];
      if (second == '%' || second == '{' || second == '#') break;
    }
    if (tag == source_.size()) {
      add(token_kind::data, source_.substr(start));
      advance_to(tag);
      return;
    }
    char kind = source_[tag + 1];
    char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    add_data(start, tag, sign, kind == '{');
    advance_to(tag);
    at_ += sign == '-' || sign == '+' ? 3 : 2;
    after_newline_ = false;
    if (kind == '#')
      comment();
    else if (kind == '%' && raw_follows())
      raw_block();
    else
      tag_tokens(kind == '{');
  }

  // Text before a tag, without the whitespace that the tag takes from it.
  void add_data(std::size_t from, std::size_t to, char sign, bool variable) {
    std::string_view text = std::string_view(source_).substr(from, to - from);
    if (sign == '-') {
      text = text.substr(0, strip_range(text, {}, false, true).to);
    } else if (sign != '+' && !variable) {
      std::size_t line_start = text.rfind('\n') + 1;  // npos + 1 is 0
      bool whole_line = line_start > 0 || after_newline_;
      auto left = strip_range(text.substr(line_start), {}, true, false);
      if (whole_line && left.from == left.to) text = text.substr(0, line_start);
    }
    if (!text.empty()) add(token_kind::data, std::string(text));
  }

  // Behind a closing delimiter: "-" takes all whitespace, "+" nothing, else one newline goes.
  void close_tag(char sign, bool trims_newline) {
    if (sign == '-') {
      skip_space();
    } else if (sign != '+' && trims_newline && peek() == '\n') {
      advance_to(at_ + 1);
    }
  }

  void comment() {
    if (at_ == source_.size()) return;  // nothing is left to close
    std::size_t end = source_.find("#}", at_);
    if (end == std::string::npos) refuse_syntax(line_, "Missing end of comment tag");
    char sign = end > at_ ? source_[end - 1] : '\0';
    advance_to(end + 2);
    close_tag(sign, true);
  }

  bool raw_follows() const {
    std::size_t i = at_;
    auto pass_space = [&] {
      for (character c; (c = character_at(source_, i)).bytes > 0 && is_space(c.code);) i += c.bytes;
    };
    pass_space();
    if (source_.compare(i, 3, "raw") != 0) return false;
    i += 3;
    pass_space();
    return source_.compare(i, 2, "%}") == 0 || source_.compare(i, 3, "-%}") == 0;
  }

  void raw_block() {
    std::size_t close = source_.find("%}", at_);
    char sign = source_[close - 1];
    advance_to(close + 2);
    close_tag(sign, false);
    std::size_t start = at_;
    if (start == source_.size()) return;
    for (std::size_t tag = source_.find("{%", at_); tag != std::string::npos;
         tag = source_.find("{%", tag + 1)) {
      at_ = tag + 2;
      char open_sign = peek();
      if (open_sign == '-' || open_sign == '+') ++at_;
      if (!end_of_raw()) continue;
      std::size_t end = at_;
      at_ = start;
      add_data(start, tag, open_sign, false);
      advance_to(end);
      close_tag(source_[end - 3], true);
      return;
    }
    refuse_syntax(line_, "Missing end of raw directive");
  }

  // Moves past `endraw %}` when that is what follows.
  bool end_of_raw() {
    auto pass_space = [&] {
      for (character c; (c = character_at(source_, at_)).bytes > 0 && is_space(c.code);)
        at_ += c.bytes;
    };
    pass_space();
    if (!looking_at("endraw")) return false;
    at_ += 6;
    pass_space();
    if (peek() == '-' || peek() == '+') ++at_;
    if (!looking_at("%}")) return false;
    at_ += 2;
    return true;
  }

  void tag_tokens(bool variable) {
    add(variable ? token_kind::variable_begin : token_kind::block_begin);
    std::string_view close = variable ? "}}" : "%}";
    std::vector<char> open_brackets;
    while (at_ < source_.size()) {
      if (open_brackets.empty()) {
        char sign = peek();
        bool signed_close =
            (sign == '-' || (sign == '+' && !variable)) && rest().substr(1, 2) == close;
        if (signed_close || looking_at(close)) {
          add(variable ? token_kind::variable_end : token_kind::block_end);
          advance_to(at_ + (signed_close ? 3 : 2));
          close_tag(signed_close ? sign : '\0', !variable);
          return;
        }
      }
      one_token(open_brackets);
    }
  }

  void one_token(std::vector<char>& open_brackets) {
    character c = character_at(source_, at_);
    if (is_space(c.code))
      skip_space();
    else if (is_digit(peek()))
      number();
    else if (peek() == '\'' || peek() == '"')
      string();
    else if (is_word(c.code))
      name();
    else
      op(open_brackets);
  }

  void name() {
    std::size_t to = at_;
    for (character c; (c = character_at(source_, to)).bytes > 0 && is_word(c.code);) to += c.bytes;
    add(token_kind::name, source_.substr(at_, to - at_));
    at_ = to;
  }

  void string() {
    char quote = peek();
    std::size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) refuse_syntax(line_, "a string is not closed");
    std::string_view raw = std::string_view(source_).substr(at_ + 1, end - at_ - 1);
    add(token_kind::string, unescaper(raw, line_).run());
    advance_to(end + 1);
    after_newline_ = false;
  }

  // Digits with single underscores between them, from `i`; where they end.
  std::size_t digits_end(std::size_t i, int base) const {
    auto digit = [&](std::size_t at) {
      if (at >= source_.size()) return false;
      char c = source_[at];
      if (base == 16) return std::isxdigit(static_cast<unsigned char>(c)) != 0;
      return c >= '0' && c < '0' + std::min(base, 10);
    };
    while (digit(i) || (i < source_.size() && source_[i] == '_' && digit(i + 1))) ++i;
    return i;
  }

  void number() {
    bool after_dot = at_ > 0 && source_[at_ - 1] == '.';  // "a.1.5" is two indexes, no float
    std::size_t whole_end = digits_end(at_, 10);
    std::size_t end = whole_end;
    auto digit_at = [&](std::size_t i) { return i < source_.size() && is_digit(source_[i]); };
    if (!after_dot) {
      if (end < source_.size() && source_[end] == '.' && digit_at(end + 1))
        end = digits_end(end + 1, 10);
      if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
        std::size_t exponent = end + 1;
        if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-'))
          ++exponent;
        if (digit_at(exponent)) end = digits_end(exponent, 10);
      }
    }
    if (end > whole_end)
      real_number(end);
    else
      whole_number(whole_end);
  }

  std::string digits_of(std::size_t from, std::size_t to) const {
    std::string digits = source_.substr(from, to - from);
    digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
    return digits;
  }

  void real_number(std::size_t end) {
    std::string digits = digits_of(at_, end);
    add(token_kind::real, digits).real = std::strtod(digits.c_str(), nullptr);
    at_ = end;
  }

  void whole_number(std::size_t decimal_end) {
    std::size_t from = at_;
    std::size_t end = decimal_end;
    int base = 10;
    if (peek() == '0') {
      char mark = static_cast<char>(std::tolower(static_cast<unsigned char>(peek(1))));
      int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
      std::size_t marked_end = marked == 0 ? 0 : digits_end(at_ + 2, marked);
      if (marked != 0 && marked_end > at_ + 2) {
        base = marked;
        from = at_ + 2;
        end = marked_end;
      } else {
        end = at_;  // only zeros: "012" is 0 and then 12, which no grammar accepts
        while (end < source_.size() && (source_[end] == '0' || source_[end] == '_') &&
               end < decimal_end)
          ++end;
      }
    }
    std::string digits = digits_of(from, end);
    std::int64_t number = 0;
    auto [stop, code] = std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
    if (code != std::errc{} || stop != digits.data() + digits.size())
      refuse_syntax(line_, "the number " + digits + " does not fit 64 bits");
    add(token_kind::integer, digits).integer = number;
    at_ = end;
  }

  void op(std::vector<char>& open_brackets) {
    constexpr std::array<std::string_view, 24> spellings = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~",
        "[",  "]",  "(",  ")",  "{",  "}",  ">", "<", "=", ".", ":", "|"};
    std::string_view found = looking_at(",") ? "," : looking_at(";") ? ";" : "";
    for (std::string_view spelling : spellings) {
      if (!found.empty()) break;
      if (looking_at(spelling)) found = spelling;
    }
    if (found.empty()) {
      std::string_view one = rest().substr(0, character_at(source_, at_).bytes);
      refuse_syntax(line_, "unexpected char " + string_repr(one));
    }
    char c = found[0];
    if (c == '{' || c == '(' || c == '[') {
      open_brackets.push_back(c == '{' ? '}' : c == '(' ? ')' : ']');
    } else if (c == '}' || c == ')' || c == ']') {
      if (open_brackets.empty()) refuse_syntax(line_, std::string("unexpected '") + c + "'");
      if (open_brackets.back() != c)
        refuse_syntax(
            line_, std::string("unexpected '") + c + "', expected '" + open_brackets.back() + "'");
      open_brackets.pop_back();
    }
    add(token_kind::op, std::string(found));
    at_ += found.size();
  }

  std::string source_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool after_newline_ = true;  // the last thing read ended a line
  std::vector<token> tokens_;
};

}  // namespace

std::vector<token> tokenize(std::string_view source) {
  return lexer(with_plain_newlines(source)).run();
}

}  // namespace tandem::text::jinja
