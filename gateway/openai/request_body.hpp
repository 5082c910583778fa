// A request's JSON body, read strictly: simdjson checks grammar, UTF-8 and depth, and every value
// is asked for by the type and range it must have. Refusals are worded as OpenAI words them.
#pragma once

#include "runtime/result.hpp"
#include "runtime/text/value.hpp"

#include <simdjson.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace tandem::gateway::openai {

inline constexpr std::size_t body_depth_max = 128;

// A value and what the user calls it ("stop", "messages[2].content"), for refusals.
struct json_field {
  std::string name;
  simdjson::dom::element value;
};

class request_body {
 public:
  // Anything but one JSON object is refused.
  static result<request_body> parse(const std::string& body);
  simdjson::dom::object fields() const { return root_; }

 private:
  std::unique_ptr<simdjson::dom::parser> parser_;  // owns what root_ looks at
  simdjson::dom::object root_;
};

struct number_range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool above_low = false;  // `low` itself is refused
};

struct integer_range {
  std::int64_t low = std::numeric_limits<std::int64_t>::min();
  std::int64_t high = std::numeric_limits<std::int64_t>::max();
};

result<bool> read_bool(const json_field& field);
// Integers may be written as decimals without a fraction ("5.0").
result<std::int64_t> read_integer(const json_field& field, integer_range range = {});
result<double> read_number(const json_field& field, number_range range = {});
result<std::string_view> read_string(const json_field& field, std::size_t bytes_max);
result<simdjson::dom::array> read_array(const json_field& field, std::size_t count_max);
result<simdjson::dom::object> read_object(const json_field& field);

// "Invalid type for 'stop': expected a string, but got an integer instead."
error wrong_type(const json_field& field, std::string_view expected);
error bad_value(std::string_view name, std::string_view what);
error missing(std::string_view name);
error not_built(std::string_view name, std::string_view what);

// The element as a tree of its own; of equal keys the last one counts.
text::value to_value(simdjson::dom::element element);

// The bytes of all strings in it, a lower bound of the text it renders to.
std::size_t string_bytes(simdjson::dom::element element);

}  // namespace tandem::gateway::openai
