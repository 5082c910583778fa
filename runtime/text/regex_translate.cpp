// From Oniguruma's dialect to PCRE2's. Only what the two read differently is rewritten: \s \S \w \W
// \d \D \h \H, some of [:these:], class intersections [a&&b] and classes within classes, and
// {n,m}+, which loops in the one and is possessive in the other.
#include "runtime/text/regex.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace tandem::text {
namespace {

// The insides of classes. \S and \W are the gaps between \s and \w.
constexpr std::string_view white_space =
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"
    "\\x{3000}";
constexpr std::string_view not_white_space =
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{"
    "10ffff}";
constexpr std::string_view word =
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}"
    "\\x{1f170}-\\x{1f189}";

class translator {
 public:
  explicit translator(std::string_view pattern) : in_(pattern) {}

  result<std::string> run() {
    while (at_ < in_.size() && why_.empty()) one();
    if (!why_.empty()) {
      return error{errc::unsupported,
                   fmt::format("regular expression '{}': {} at byte {}", in_, why_, at_),
                   {}};
    }
    return std::move(out_);
  }

 private:
  bool next_is(std::string_view what) const { return in_.substr(at_).starts_with(what); }

  void atom(std::string_view text) {
    atom_ = out_.size();
    out_ += text;
  }

  void one() {
    const char c = in_[at_];
    if (c == '\\') return escape();
    if (c == '[') {
      ++at_;
      std::string set = set_items(0);
      return atom(set);
    }
    if (c == '(') {
      open_.push_back(out_.size());
      out_ += c;
      ++at_;
      return;
    }
    if (c == ')') {
      out_ += c;
      ++at_;
      if (!open_.empty()) {
        atom_ = open_.back();
        open_.pop_back();
      }
      return;
    }
    if (c == '{') return interval();
    if (c == '*' || c == '+' || c == '?' || c == '|' || c == '^' || c == '$') {
      out_ += c;
      ++at_;
      return;
    }
    const std::size_t length = std::min(utf8_length(c), in_.size() - at_);
    atom(in_.substr(at_, length));
    at_ += length;
  }

  void escape() {
    if (at_ + 1 >= in_.size()) {
      why_ = "a backslash with nothing behind it";
      return;
    }
    const char c = in_[at_ + 1];
    at_ += 2;
    switch (c) {
      case 's':
        return atom(fmt::format("[{}]", white_space));
      case 'S':
        return atom(fmt::format("[^{}]", white_space));
      case 'w':
        return atom(fmt::format("[{}]", word));
      case 'W':
        return atom(fmt::format("[^{}]", word));
      case 'd':
        return atom("\\p{Nd}");
      case 'D':
        return atom("\\P{Nd}");
      case 'h':
        return atom("[0-9a-fA-F]");
      case 'H':
        return atom("[^0-9a-fA-F]");
      default:
        break;
    }
    atom(in_.substr(at_ - 2, 1));
    rest_of_escape(out_);
  }

  // Behind a copied backslash: the letter and what belongs to it.
  void rest_of_escape(std::string& out) {
    const char c = in_[at_ - 1];
    if (c == 'u' && at_ + 4 <= in_.size()) {
      out += fmt::format("x{{{}}}", in_.substr(at_, 4));
      at_ += 4;
      return;
    }
    out += c;
    const bool braces = c == 'p' || c == 'P' || c == 'x' || c == 'o' || c == 'k' || c == 'g';
    if (!braces || !next_is("{")) return;
    const std::size_t end = in_.find('}', at_);
    if (end == std::string_view::npos) {
      why_ = "a '{' without its '}'";
      return;
    }
    out += in_.substr(at_, end + 1 - at_);
    at_ = end + 1;
  }

  void interval() {
    std::size_t end = at_ + 1;
    while (end < in_.size() && ((in_[end] >= '0' && in_[end] <= '9') || in_[end] == ',')) ++end;
    const std::string_view bounds = in_.substr(at_ + 1, end - at_ - 1);
    if (end >= in_.size() || in_[end] != '}' || bounds.empty() || bounds == ",") {
      ++at_;
      return atom("\\{");
    }
    if (bounds.front() == ',') {
      out_ += fmt::format("{{0{}}}", bounds);  // {,n}
    } else {
      out_ += fmt::format("{{{}}}", bounds);
    }
    at_ = end + 1;
    if (!next_is("+")) return;
    out_ = fmt::format("{}(?:{})", out_.substr(0, atom_), out_.substr(atom_));
  }

  // What stands between two '&&': the items of a set, or a whole set with its brackets.
  struct set_part {
    std::string items;
    bool whole = false;
    std::string bracketed() const { return whole ? items : fmt::format("[{}]", items); }
  };

  // A bracketed set, behind its '[': what PCRE2 reads the same way.
  std::string set_items(int depth) {
    if (depth > 8) {
      why_ = "sets nested too deep";
      return {};
    }
    const bool negated = next_is("^");
    if (negated) ++at_;
    std::vector<set_part> parts(1);
    bool first = true;
    for (; why_.empty(); first = false) {
      if (at_ >= in_.size()) {
        why_ = "a '[' without its ']'";
        return {};
      }
      if (in_[at_] == ']' && !first) break;
      set_item(parts, depth);
    }
    ++at_;
    return close_set(parts, negated);
  }

  void set_item(std::vector<set_part>& parts, int depth) {
    const char c = in_[at_];
    if (parts.back().whole && !next_is("&&")) {
      why_ = "a negated set inside a set";
      return;
    }
    std::string& part = parts.back().items;
    if (next_is("&&")) {
      at_ += 2;
      parts.emplace_back();
    } else if (next_is("[:")) {
      const std::size_t end = in_.find(":]", at_);
      if (end == std::string_view::npos) {
        why_ = "a '[:' without its ':]'";
        return;
      }
      posix_class(parts.back(), in_.substr(at_ + 2, end - at_ - 2));
      at_ = end + 2;
    } else if (c == '[') {
      ++at_;
      const std::string inner = set_items(depth + 1);
      if (!why_.empty()) return;
      if (inner.starts_with('[') && !inner.starts_with("[^")) {
        part += std::string_view(inner).substr(1, inner.size() - 2);
      } else if (part.empty()) {
        parts.back() = {inner, true};
      } else {
        why_ = "a negated set inside a set";
      }
    } else if (c == '\\') {
      set_escape(part);
    } else {
      const std::size_t length = std::min(utf8_length(c), in_.size() - at_);
      part += in_.substr(at_, length);
      at_ += length;
    }
  }

  // What is between [: and :]. Oniguruma goes by Unicode's properties, PCRE2 by general categories.
  void posix_class(set_part& part, std::string_view name) {
    struct known {
      std::string_view name;
      std::string_view items;
    };
    constexpr std::array differing{
        known{"alpha", R"(\p{Alphabetic})"}, known{"alnum", R"(\p{Alphabetic}\p{Nd})"},
        known{"upper", R"(\p{Uppercase})"},  known{"lower", R"(\p{Lowercase})"},
        known{"punct", R"(\p{P}\p{S})"},     known{"word", word}};
    const bool negated = name.starts_with('^');
    const auto found = std::find_if(differing.begin(), differing.end(), [&](const known& one) {
      return one.name == name.substr(negated ? 1 : 0);
    });
    if (found == differing.end()) {
      part.items += fmt::format("[:{}:]", name);
    } else if (!negated) {
      part.items += found->items;
    } else if (part.items.empty()) {
      part = {fmt::format("[^{}]", found->items), true};
    } else {
      why_ = "a negated set inside a set";
    }
  }

  void set_escape(std::string& part) {
    if (at_ + 1 >= in_.size()) {
      why_ = "a backslash with nothing behind it";
      return;
    }
    const char c = in_[at_ + 1];
    at_ += 2;
    switch (c) {
      case 's':
        part += white_space;
        return;
      case 'S':
        part += not_white_space;
        return;
      case 'w':
        part += word;
        return;
      case 'd':
        part += "\\p{Nd}";
        return;
      case 'D':
        part += "\\P{Nd}";
        return;
      case 'h':
        part += "0-9a-fA-F";
        return;
      case 'W':
      case 'H':
        why_ = fmt::format("\\{} inside a set", c);
        return;
      default:
        break;
    }
    part += '\\';
    rest_of_escape(part);
  }

  static std::string close_set(const std::vector<set_part>& parts, bool negated) {
    if (parts.size() == 1 && !parts[0].whole) {
      return fmt::format("[{}{}]", negated ? "^" : "", parts[0].items);
    }
    std::string all;
    for (const set_part& part : parts) {
      all += &part == &parts.back() ? part.bracketed() : fmt::format("(?={})", part.bracketed());
    }
    return negated ? fmt::format("(?:(?!{})(?s:.))", all) : fmt::format("(?:{})", all);
  }

  std::string_view in_;
  std::size_t at_ = 0;
  std::string out_;
  std::size_t atom_ = 0;           // where the last atom begins in out_
  std::vector<std::size_t> open_;  // where the open groups begin in out_
  std::string why_;
};

}  // namespace

result<std::string> translate_regex(std::string_view pattern) {
  // Searching this one is quadratic in a run of spaces; a run that fails at its first space fails
  // at all of them, so only that one and the end of the last match are tried.
  if (pattern == "\\s+$") {
    return fmt::format("(?:\\G|(?<![{0}]))[{0}]+$", white_space);
  }
  return translator(pattern).run();
}

}  // namespace tandem::text
