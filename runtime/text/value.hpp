// A JSON-like value with objects in their written order: what templates see, and what requests
// carry where their shape is the user's (messages, tools, schemas).
#pragma once

#include "runtime/result.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace tandem::text {

class value {
 public:
  using array = std::vector<value>;
  using object = std::vector<std::pair<std::string, value>>;  // insertion order, unique keys

  value() = default;  // null
  value(std::nullptr_t) {}
  value(bool b) : state_(b) {}
  value(std::int64_t i) : state_(i) {}
  value(int i) : state_(std::int64_t{i}) {}
  value(double d) : state_(d) {}
  value(std::string s) : state_(std::move(s)) {}
  value(const char* s) : state_(std::string(s)) {}
  value(array a) : state_(std::move(a)) {}
  value(object o) : state_(std::move(o)) {}

  // Strict JSON (simdjson), nesting bounded; numbers beyond int64 become doubles.
  static result<value> from_json(std::string_view json);
  // Compact JSON, keys in order.
  std::string to_json() const;

  bool is_null() const { return state_.index() == 0; }
  const bool* if_bool() const { return std::get_if<bool>(&state_); }
  const std::int64_t* if_int() const { return std::get_if<std::int64_t>(&state_); }
  const double* if_double() const { return std::get_if<double>(&state_); }
  const std::string* if_string() const { return std::get_if<std::string>(&state_); }
  const array* if_array() const { return std::get_if<array>(&state_); }
  const object* if_object() const { return std::get_if<object>(&state_); }
  array* if_array() { return std::get_if<array>(&state_); }
  object* if_object() { return std::get_if<object>(&state_); }

  // The member of that name; null pointer when this is no object or has none.
  const value* find(std::string_view key) const;
  // Sets a member of an object (a null value becomes an object first).
  void set(std::string_view key, value v);

  bool operator==(const value&) const = default;

 private:
  std::variant<std::monostate, bool, std::int64_t, double, std::string, array, object> state_;
};

}  // namespace tandem::text
