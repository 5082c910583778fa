// Filters by name, arguments by name, and the helpers that filters and methods share.
#include "runtime/text/jinja_library.hpp"

#include "runtime/text/jinja_objects.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>

namespace tandem::text::jinja {

filter_function find_filter(std::string_view name) {
  static const auto table = [] {
    std::map<std::string_view, filter_function> all;
    for (const auto& part : {text_filters(), sequence_filters(), number_filters()})
      for (const auto& [known, function] : part) all.emplace(known, function);
    return all;
  }();
  auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

parameters::parameters(std::string_view function, arguments& args,
                       std::initializer_list<std::string_view> names, std::size_t required)
    : function_(function), found_(names.size(), nullptr) {
  std::string who(function);
  if (args.positional.size() > names.size())
    refuse("TypeError: " + who + "() takes at most " + std::to_string(names.size()) +
           " arguments, " + std::to_string(args.positional.size()) + " given");
  for (std::size_t i = 0; i < args.positional.size(); ++i) found_[i] = &args.positional[i];
  for (const auto& [name, v] : args.named) {
    auto at = std::find(names.begin(), names.end(), name);
    if (at == names.end())
      refuse("TypeError: " + who + "() got an unexpected keyword argument '" + name + "'");
    auto place = static_cast<std::size_t>(at - names.begin());
    if (found_[place] != nullptr)
      refuse("TypeError: " + who + "() got multiple values for argument '" + name + "'");
    found_[place] = &v;
  }
  for (std::size_t i = 0; i < required; ++i)
    if (found_[i] == nullptr)
      refuse("TypeError: " + who + "() missing required argument '" +
             std::string(names.begin()[i]) + "'");
}

bool parameters::truth(interpreter& in, std::size_t i, bool fallback) const {
  return found_[i] == nullptr ? fallback : jinja::truth(in, *found_[i]);
}

std::int64_t parameters::whole(std::size_t i, std::int64_t fallback) const {
  if (found_[i] == nullptr) return fallback;
  if (found_[i]->is_undefined()) refuse("UndefinedError: " + found_[i]->why_undefined());
  if (auto held = found_[i]->whole()) return *held;
  refuse("TypeError: " + std::string(function_) + "() wants an integer, not '" +
         found_[i]->type_name() + "'");
}

const traced_text& parameters::text(std::size_t i) const {
  const auto* held = found_[i]->if_string();
  if (held == nullptr)
    refuse("TypeError: " + std::string(function_) + "() wants a str, not '" +
           found_[i]->type_name() + "'");
  return *held;
}

traced_text escape_html(meter& m, const traced_text& text) {
  m.spend_bytes(text.size());
  traced_text out;
  text.for_each_run([&](std::string_view run, bool trusted) {
    std::string escaped;
    for (char c : run) {
      switch (c) {
        case '&':
          escaped += "&amp;";
          break;
        case '<':
          escaped += "&lt;";
          break;
        case '>':
          escaped += "&gt;";
          break;
        case '\'':
          escaped += "&#39;";
          break;
        case '"':
          escaped += "&#34;";
          break;
        default:
          escaped += c;
      }
    }
    out.append(escaped, trusted);
  });
  return out;
}

traced_text join(interpreter& in, const traced_text& separator, const std::vector<var>& items) {
  traced_text out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    traced_text text = to_text(in.work, items[i]);
    std::size_t more = text.size() + (i > 0 ? separator.size() : 0);
    in.work.spend(1 + more / 16);
    if (out.size() + more > meter::text_bytes_max) in.work.spend_bytes(out.size() + more);
    if (i > 0) out.append(separator);
    out.append(text);
  }
  return out;
}

traced_text replace(interpreter& in, const traced_text& text, const traced_text& from,
                    const traced_text& to, std::int64_t count) {
  const std::string& bytes = text.bytes();
  in.work.spend_bytes(bytes.size());
  traced_text out;
  std::size_t done = 0;
  for (std::size_t at = 0; count != 0; --count) {
    std::size_t found = find_text(bytes, from.bytes(), at);
    if (found == std::string::npos) break;
    out.append(text.slice(done, found));
    out.append(to);
    in.work.spend(1 + to.size() / 16);
    if (out.size() > meter::text_bytes_max) in.work.spend_bytes(out.size());
    done = found + from.size();
    at = done;
    if (from.empty()) {  // between all characters
      std::size_t step = character_at(bytes, done).bytes;
      if (step == 0) break;
      at = done + step;
    }
  }
  out.append(text.slice(done, bytes.size()));
  in.work.spend_bytes(out.size());
  return out;
}

traced_text pad(meter& m, const traced_text& text, std::int64_t left, std::int64_t right,
                std::string_view fill, bool fill_trusted) {
  traced_text unit{std::string(fill), fill_trusted};
  traced_text out = repeat(m, unit, left);
  m.spend_bytes(out.size() + text.size());
  out.append(text);
  out.append(repeat(m, unit, right));
  return out;
}

namespace {

// Without the underscores Python allows between digits; nullopt where one is out of place.
std::optional<std::string> plain_digits(std::string_view text) {
  auto alnum = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
      continue;
    }
    if (i == 0 || i + 1 == text.size() || !alnum(text[i - 1]) || !alnum(text[i + 1]))
      return std::nullopt;
  }
  return out;
}

std::string_view stripped(std::string_view text) {
  auto kept = strip_range(text, {}, true, true);
  return text.substr(kept.from, kept.to - kept.from);
}

}  // namespace

std::optional<std::int64_t> parse_whole(std::string_view text, int base) {
  text = stripped(text);
  bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  if (text.size() > 1 && text[0] == '0') {
    char mark = static_cast<char>(std::tolower(static_cast<unsigned char>(text[1])));
    int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked != 0 && (base == marked || base == 0)) {
      text.remove_prefix(2);
      if (!text.empty() && text[0] == '_') text.remove_prefix(1);
      base = marked;
    }
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36) refuse("ValueError: int() base must be >= 2 and <= 36, or 0");
  auto digits = plain_digits(text);
  if (!digits || digits->empty() || (*digits)[0] == '-' || (*digits)[0] == '+') return std::nullopt;
  std::string written = (negative ? "-" : "") + *digits;
  std::int64_t number = 0;
  auto [end, code] = std::from_chars(written.data(), written.data() + written.size(), number, base);
  if (end != written.data() + written.size()) return std::nullopt;
  if (code == std::errc::result_out_of_range) refuse("a whole number does not fit 64 bits");
  return number;
}

std::optional<double> parse_real(std::string_view text) {
  auto digits = plain_digits(stripped(text));
  if (!digits || digits->empty()) return std::nullopt;
  std::string lower = *digits;
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  bool negative = lower[0] == '-';
  std::string_view word = lower;
  if (word[0] == '-' || word[0] == '+') word.remove_prefix(1);
  double sign = negative ? -1 : 1;
  if (word == "inf" || word == "infinity") return sign * std::numeric_limits<double>::infinity();
  if (word == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (word.find_first_not_of("0123456789.e+-") != std::string_view::npos || word.empty() ||
      word[0] == '-' || word[0] == '+')
    return std::nullopt;
  std::string number(word);
  char* end = nullptr;
  double parsed = std::strtod(number.c_str(), &end);
  if (end != number.c_str() + number.size()) return std::nullopt;
  return sign * parsed;
}

var follow(interpreter& in, const var& from, const var& attribute, const var* fallback) {
  var held = from;
  auto step = [&](const var& key) {
    held = item(in, held, key);
    if (fallback != nullptr && !fallback->is_none() && held.is_undefined()) held = *fallback;
  };
  const auto* path = attribute.if_string();
  if (path == nullptr) {
    if (!attribute.is_none()) step(attribute);
    return held;
  }
  std::string_view rest = path->bytes();
  for (;;) {
    std::size_t dot = rest.find('.');
    std::string_view part = rest.substr(0, dot);
    bool digits = !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
    auto index = digits ? parse_whole(part, 10) : std::nullopt;
    step(index ? var(*index) : var::literal(part));
    if (dot == std::string_view::npos) return held;
    rest.remove_prefix(dot + 1);
  }
}

}  // namespace tandem::text::jinja
