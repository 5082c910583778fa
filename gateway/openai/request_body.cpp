#include "gateway/openai/request_body.hpp"

#include <fmt/format.h>

#include <cmath>
#include <unordered_map>

namespace tandem::gateway::openai {

namespace dom = simdjson::dom;

namespace {

std::string_view kind(dom::element value) {
  switch (value.type()) {
    case dom::element_type::ARRAY:
      return "an array";
    case dom::element_type::OBJECT:
      return "an object";
    case dom::element_type::INT64:
    case dom::element_type::UINT64:
      return "an integer";
    case dom::element_type::DOUBLE:
      return "a decimal";
    case dom::element_type::STRING:
      return "a string";
    case dom::element_type::BOOL:
      return "a boolean";
    case dom::element_type::NULL_VALUE:
      break;
  }
  return "null";
}

// A hash map pays off only for objects that no honest client sends.
constexpr std::size_t few_members = 32;

text::value object_value(dom::object object) {
  text::value::object members;
  members.reserve(object.size());
  std::unordered_map<std::string_view, std::size_t> places;
  const bool many = object.size() > few_members;
  for (const auto member : object) {
    std::size_t at = members.size();
    if (many) {
      at = places.emplace(member.key, members.size()).first->second;
    } else {
      for (std::size_t i = 0; i < members.size(); ++i)
        if (members[i].first == member.key) at = i;
    }
    if (at == members.size())
      members.emplace_back(std::string(member.key), to_value(member.value));
    else
      members[at].second = to_value(member.value);
  }
  return members;
}

error broken_body(simdjson::error_code why) {
  return {errc::bad_request,
          fmt::format("We could not parse the JSON body of your request: {}. The body must be one "
                      "JSON object.",
                      simdjson::error_message(why)),
          ""};
}

}  // namespace

result<request_body> request_body::parse(const std::string& body) {
  request_body read;
  read.parser_ = std::make_unique<dom::parser>();
  if (const auto why = read.parser_->allocate(body.size(), body_depth_max); why)
    return broken_body(why);
  // simdjson reads past the end; the server leaves room for that, others get a copy.
  const bool padded = body.capacity() >= body.size() + simdjson::SIMDJSON_PADDING;
  dom::element root;
  if (const auto why = read.parser_->parse(body.data(), body.size(), !padded).get(root); why)
    return broken_body(why);
  if (!root.is_object())
    return error{errc::bad_request,
                 fmt::format("The body must be one JSON object, but it is {}.", kind(root)), ""};
  read.root_ = dom::object(root);
  return read;
}

result<bool> read_bool(const json_field& field) {
  bool value = false;
  if (field.value.get(value)) return wrong_type(field, "a boolean");
  return value;
}

result<std::int64_t> read_integer(const json_field& field, integer_range range) {
  constexpr double exact = 9007199254740992.0;  // 2^53
  std::int64_t value = 0;
  if (field.value.get(value)) {
    if (field.value.type() == dom::element_type::UINT64)
      return bad_value(
          field.name, fmt::format("integer above maximum value. Expected a value <= {}, but got {} "
                                  "instead",
                                  range.high, std::uint64_t(field.value)));
    if (field.value.type() != dom::element_type::DOUBLE) return wrong_type(field, "an integer");
    const double decimal(field.value);
    if (decimal != std::trunc(decimal) || std::abs(decimal) > exact)
      return wrong_type(field, "an integer");
    value = static_cast<std::int64_t>(decimal);
  }
  if (value < range.low)
    return bad_value(field.name, fmt::format("integer below minimum value. Expected a value >= {}, "
                                             "but got {} instead",
                                             range.low, value));
  if (value > range.high)
    return bad_value(field.name, fmt::format("integer above maximum value. Expected a value <= {}, "
                                             "but got {} instead",
                                             range.high, value));
  return value;
}

result<double> read_number(const json_field& field, number_range range) {
  if (!field.value.is_number()) return wrong_type(field, "a number");
  const double value = double(field.value);
  if (value < range.low || (range.above_low && value == range.low))
    return bad_value(field.name, fmt::format("decimal below minimum value. Expected a value {} {}, "
                                             "but got {} instead",
                                             range.above_low ? ">" : ">=", range.low, value));
  if (value > range.high)
    return bad_value(field.name, fmt::format("decimal above maximum value. Expected a value <= {}, "
                                             "but got {} instead",
                                             range.high, value));
  return value;
}

result<std::string_view> read_string(const json_field& field, std::size_t bytes_max) {
  std::string_view value;
  if (field.value.get(value)) return wrong_type(field, "a string");
  if (value.size() > bytes_max)
    return bad_value(field.name,
                     fmt::format("string too long. Expected at most {} bytes, but got {} instead",
                                 bytes_max, value.size()));
  return value;
}

result<dom::array> read_array(const json_field& field, std::size_t count_max) {
  dom::array value;
  if (field.value.get(value)) return wrong_type(field, "an array");
  if (value.size() > count_max)
    return bad_value(field.name,
                     fmt::format("array too long. Expected at most {} elements, but got {} instead",
                                 count_max, value.size()));
  return value;
}

result<dom::object> read_object(const json_field& field) {
  dom::object value;
  if (field.value.get(value)) return wrong_type(field, "an object");
  return value;
}

error wrong_type(const json_field& field, std::string_view expected) {
  return {errc::bad_request,
          fmt::format("Invalid type for '{}': expected {}, but got {} instead.", field.name,
                      expected, kind(field.value)),
          field.name};
}

error bad_value(std::string_view name, std::string_view what) {
  return {errc::bad_request, fmt::format("Invalid '{}': {}.", name, what), std::string(name)};
}

error missing(std::string_view name) {
  return {errc::bad_request, fmt::format("Missing required parameter: '{}'.", name),
          std::string(name)};
}

error not_built(std::string_view name, std::string_view what) {
  return {errc::unsupported, fmt::format("Unsupported '{}': {}.", name, what), std::string(name)};
}

text::value to_value(dom::element element) {
  switch (element.type()) {
    case dom::element_type::ARRAY: {
      text::value::array items;
      for (const dom::element item : dom::array(element)) items.push_back(to_value(item));
      return items;
    }
    case dom::element_type::OBJECT:
      return object_value(dom::object(element));
    case dom::element_type::INT64:
      return std::int64_t(element);
    case dom::element_type::UINT64:
      return static_cast<double>(std::uint64_t(element));
    case dom::element_type::DOUBLE:
      return double(element);
    case dom::element_type::STRING:
      return std::string(std::string_view(element));
    case dom::element_type::BOOL:
      return bool(element);
    case dom::element_type::NULL_VALUE:
      break;
  }
  return nullptr;
}

std::size_t string_bytes(dom::element element) {
  std::size_t bytes = 0;
  if (element.is_string()) return std::string_view(element).size();
  if (element.is_array()) {
    for (const dom::element item : dom::array(element)) bytes += string_bytes(item);
  } else if (element.is_object()) {
    for (const auto member : dom::object(element)) bytes += string_bytes(member.value);
  }
  return bytes;
}

}  // namespace tandem::gateway::openai
