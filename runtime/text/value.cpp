// JSON in and out of `value`. simdjson reads; the walk is ours because numbers past int64 must
// become doubles (simdjson's tree refuses them) and keys must stay unique, in written order.
#include "runtime/text/value.hpp"

#include "simdjson.h"

#include <charconv>
#include <cmath>
#include <unordered_map>

namespace tandem::text {
namespace {

namespace od = simdjson::ondemand;

constexpr int nesting_max = 200;          // recursion here and in every walk over a value
constexpr std::size_t small_object = 16;  // below this a linear search beats a hash table

error bad_json(std::string why) {
  return {errc::bad_request, "not valid JSON: " + std::move(why), {}};
}

error bad_json(simdjson::error_code code) { return bad_json(simdjson::error_message(code)); }

// Collects members; a repeated key keeps its first place and takes its last value, as Python does.
class member_list {
 public:
  void put(std::string key, value v) {
    if (members_.size() == small_object && places_.empty())
      for (std::size_t i = 0; i < members_.size(); ++i) places_.emplace(members_[i].first, i);
    if (value* known = find(key)) {
      *known = std::move(v);
      return;
    }
    if (members_.size() >= small_object) places_.emplace(key, members_.size());
    members_.emplace_back(std::move(key), std::move(v));
  }
  value::object take() { return std::move(members_); }

 private:
  value* find(const std::string& key) {
    if (members_.size() < small_object) {
      for (auto& [name, member] : members_)
        if (name == key) return &member;
      return nullptr;
    }
    auto place = places_.find(key);
    return place == places_.end() ? nullptr : &members_[place->second].second;
  }
  value::object members_;
  std::unordered_map<std::string, std::size_t> places_;
};

// `element` is an ondemand value or, at the root, the document itself.
template <class Element>
result<value> read(Element& element, int depth);

result<value> read_array(od::array array, int depth) {
  value::array items;
  for (auto item : array) {
    od::value v;
    if (auto code = item.get(v)) return bad_json(code);
    auto read_item = read(v, depth + 1);
    if (!read_item) return read_item;
    items.push_back(std::move(*read_item));
  }
  return value(std::move(items));
}

result<value> read_object(od::object object, int depth) {
  member_list members;
  for (auto field : object) {
    std::string_view key;
    if (auto code = field.unescaped_key().get(key)) return bad_json(code);
    std::string name(key);  // the view lies in a buffer that the member's own strings share
    od::value v;
    if (auto code = field.value().get(v)) return bad_json(code);
    auto member = read(v, depth + 1);
    if (!member) return member;
    members.put(std::move(name), std::move(*member));
  }
  return value(members.take());
}

template <class Element>
result<value> read_number(Element& element) {
  std::int64_t whole = 0;
  if (!element.get_int64().get(whole)) return value(whole);
  double number = 0;
  if (auto code = element.get_double().get(number)) return bad_json(code);
  if (!std::isfinite(number)) return bad_json("a number too large for a double");
  return value(number);
}

template <class Element>
result<value> read(Element& element, int depth) {
  if (depth > nesting_max)
    return bad_json("nested deeper than " + std::to_string(nesting_max) + " levels");
  od::json_type type{};
  if (auto code = element.type().get(type)) return bad_json(code);
  switch (type) {
    case od::json_type::array: {
      od::array array;
      if (auto code = element.get_array().get(array)) return bad_json(code);
      return read_array(array, depth);
    }
    case od::json_type::object: {
      od::object object;
      if (auto code = element.get_object().get(object)) return bad_json(code);
      return read_object(object, depth);
    }
    case od::json_type::string: {
      std::string_view text;
      if (auto code = element.get_string().get(text)) return bad_json(code);
      return value(std::string(text));
    }
    case od::json_type::boolean: {
      bool b = false;
      if (auto code = element.get_bool().get(b)) return bad_json(code);
      return value(b);
    }
    case od::json_type::number:
      return read_number(element);
    default:
      break;
  }
  bool null = false;
  if (simdjson::simdjson_result<bool>(element.is_null()).get(null) || !null)
    return bad_json("expected a value");
  return value();
}

void write_string(std::string& out, std::string_view text) {
  constexpr char hex[] = "0123456789abcdef";
  out += '"';
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (byte < 0x20) {
          out += "\\u00";
          out += hex[byte >> 4];
          out += hex[byte & 15];
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

void write_double(std::string& out, double d) {
  if (!std::isfinite(d)) {  // JSON has no word for it
    out += "null";
    return;
  }
  char digits[40];
  auto [end, code] = std::to_chars(digits, digits + sizeof digits, d);
  std::string_view text(digits, static_cast<std::size_t>(end - digits));
  out += text;
  // A double stays a double when read back.
  if (text.find_first_of(".e") == std::string_view::npos) out += ".0";
}

void write(std::string& out, const value& v) {
  if (const bool* b = v.if_bool()) {
    out += *b ? "true" : "false";
  } else if (const std::int64_t* whole = v.if_int()) {
    out += std::to_string(*whole);
  } else if (const double* d = v.if_double()) {
    write_double(out, *d);
  } else if (const std::string* s = v.if_string()) {
    write_string(out, *s);
  } else if (const value::array* items = v.if_array()) {
    out += '[';
    for (std::size_t i = 0; i < items->size(); ++i) {
      if (i > 0) out += ',';
      write(out, (*items)[i]);
    }
    out += ']';
  } else if (const value::object* members = v.if_object()) {
    out += '{';
    for (std::size_t i = 0; i < members->size(); ++i) {
      if (i > 0) out += ',';
      write_string(out, (*members)[i].first);
      out += ':';
      write(out, (*members)[i].second);
    }
    out += '}';
  } else {
    out += "null";
  }
}

}  // namespace

result<value> value::from_json(std::string_view json) {
  simdjson::padded_string padded(json);
  od::parser parser;
  od::document document;
  if (auto code = parser.iterate(padded).get(document)) return bad_json(code);
  auto parsed = read(document, 0);
  if (!parsed) return parsed;
  if (document.current_location().error() != simdjson::OUT_OF_BOUNDS)
    return bad_json("something follows the value");
  return parsed;
}

std::string value::to_json() const {
  std::string out;
  write(out, *this);
  return out;
}

const value* value::find(std::string_view key) const {
  const object* members = if_object();
  if (members == nullptr) return nullptr;
  for (const auto& [name, member] : *members)
    if (name == key) return &member;
  return nullptr;
}

void value::set(std::string_view key, value v) {
  if (is_null()) state_ = object{};
  object* members = if_object();
  ensure(members != nullptr, "set() on a value that is no object");
  for (auto& [name, member] : *members) {
    if (name != key) continue;
    member = std::move(v);
    return;
  }
  members->emplace_back(std::string(key), std::move(v));
}

}  // namespace tandem::text
