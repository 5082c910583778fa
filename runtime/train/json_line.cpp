#include "runtime/train/json_line.hpp"

#include "runtime/text/utf8.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::train {

namespace dom = simdjson::dom;
using text::value;

namespace {

constexpr std::size_t nesting_max = 100;  // simdjson's depth and the recursion here

// A copy, and where the first repeated key stands.
class copier {
 public:
  std::string twice;  // "messages[0].content"; empty: no key is there twice

  value copy(dom::element from) {
    switch (from.type()) {
      case dom::element_type::ARRAY:
        return copy_array(dom::array(from));
      case dom::element_type::OBJECT:
        return copy_object(dom::object(from));
      case dom::element_type::INT64:
        return std::int64_t(from);
      case dom::element_type::UINT64:
        return static_cast<double>(std::uint64_t(from));
      case dom::element_type::DOUBLE:
        return double(from);
      case dom::element_type::STRING:
        return std::string(std::string_view(from));
      case dom::element_type::BOOL:
        return bool(from);
      case dom::element_type::NULL_VALUE:
        break;
    }
    return nullptr;
  }

 private:
  struct step {
    std::string_view key;
    std::size_t index = 0;  // where there is no key
  };

  value copy_array(dom::array from) {
    value::array items;
    for (const dom::element item : from) {
      way_.push_back({{}, items.size()});
      items.push_back(copy(item));
      way_.pop_back();
    }
    return items;
  }

  value copy_object(dom::object from) {
    value::object members;
    std::vector<std::string_view> keys;
    for (const auto member : from) {
      way_.push_back({member.key, 0});
      members.emplace_back(std::string(member.key), copy(member.value));
      way_.pop_back();
      keys.push_back(member.key);
    }
    std::sort(keys.begin(), keys.end());
    const auto same = std::adjacent_find(keys.begin(), keys.end());
    if (same != keys.end() && twice.empty()) twice = place(*same);
    return members;
  }

  std::string place(std::string_view key) const {
    std::string name;
    for (const step& s : way_) {
      if (s.key.data() == nullptr) {
        name += fmt::format("[{}]", s.index);
      } else {
        name += name.empty() ? "" : ".";
        name += s.key;
      }
    }
    name += name.empty() ? "" : ".";
    return name += key;
  }

  std::vector<step> way_;
};

std::string why_not_json(simdjson::error_code code, std::string_view json) {
  const std::string_view trimmed = json.substr(0, json.find_last_not_of(" \t") + 1);
  if (const std::size_t nul = json.find('\0'); nul != std::string_view::npos)
    return fmt::format("a NUL byte at byte {}; the file is not JSON lines in UTF-8", nul + 1);
  switch (code) {
    case simdjson::UTF8_ERROR: {
      std::string storage;
      const std::string_view valid = text::valid_utf8(json, storage);
      const auto at = std::mismatch(json.begin(), json.end(), valid.begin(), valid.end()).first;
      return fmt::format("not valid UTF-8 at byte {}; save the file as UTF-8",
                         at - json.begin() + 1);
    }
    case simdjson::DEPTH_ERROR:
      return fmt::format("nested deeper than {} levels", nesting_max);
    case simdjson::NUMBER_ERROR:
      return "a number that is malformed or does not fit 64 bits";
    case simdjson::STRING_ERROR:
      return "a string with a broken escape, or half a surrogate pair";
    case simdjson::UNESCAPED_CHARS:
      return "a string with a raw control character; write line breaks as \\n and tabs as \\t";
    case simdjson::UNCLOSED_STRING:
      return "a string that is not closed on its line";
    case simdjson::CAPACITY:
    case simdjson::MEMALLOC:
      return "too large to be read";
    default:
      break;
  }
  if (!trimmed.empty() && std::string_view("{[,:").find(trimmed.back()) != std::string_view::npos)
    return "not one whole JSON object; an example must stand on one line, not be spread over many";
  if (trimmed.starts_with('{') && trimmed.find("}{") != std::string_view::npos)
    return "not one JSON object; is a line break missing between two examples?";
  return "not one JSON object (a bracket, comma or quote is missing or too many)";
}

}  // namespace

std::optional<value> json_line::parse(std::string_view json, fault& wrong) {
  if (parser_.capacity() == 0 && parser_.allocate(4096, nesting_max) != simdjson::SUCCESS) {
    wrong.what = "no memory to read it";
    return std::nullopt;
  }
  padded_.assign(json);
  padded_.append(simdjson::SIMDJSON_PADDING, ' ');
  dom::element root;
  if (const auto code = parser_.parse(padded_.data(), json.size(), false).get(root)) {
    wrong.what = why_not_json(code, json);
    return std::nullopt;
  }
  if (!root.is_object()) {
    wrong.what = root.is_array()
                     ? "a JSON array; each line must be one example, an object: {\"messages\": …}"
                     : "not a JSON object; each line must be one example: {\"messages\": …}";
    return std::nullopt;
  }
  copier of;
  value copied = of.copy(root);
  if (!of.twice.empty()) {
    wrong.field = of.twice;
    wrong.what = "this key is there twice; remove one";
    return std::nullopt;
  }
  return copied;
}

}  // namespace tandem::train
