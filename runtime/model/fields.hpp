// The fields of a JSON object, typed and bounded, so that reading a config is a list of lines. The
// first thing wrong is kept and everything after it reads as its default: the caller asks once.
#pragma once

#include "runtime/result.hpp"

#include <simdjson.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::model {

class fields {
 public:
  fields(simdjson::dom::object object, std::string where)
      : object_(object), where_(std::move(where)) {}

  // A missing key and a null are the same: absent.
  bool has(std::string_view key) const;
  bool is_null(std::string_view key) const;  // there, and null
  std::optional<std::int64_t> find_integer(std::string_view key, std::int64_t least,
                                           std::int64_t most);
  std::optional<double> find_number(std::string_view key, double least, double most);
  std::optional<bool> find_boolean(std::string_view key);
  std::optional<std::string> find_string(std::string_view key);
  std::vector<double> numbers(std::string_view key, double least, double most);
  std::vector<std::int64_t> integers(std::string_view key, std::int64_t least, std::int64_t most);
  std::vector<std::string> strings(std::string_view key);
  // One integer, or a list of them.
  std::vector<std::int64_t> one_or_more(std::string_view key, std::int64_t least,
                                        std::int64_t most);
  std::optional<fields> find_object(std::string_view key);

  std::int64_t integer(std::string_view key, std::int64_t otherwise, std::int64_t least,
                       std::int64_t most) {
    return find_integer(key, least, most).value_or(otherwise);
  }
  std::int64_t required_integer(std::string_view key, std::int64_t least, std::int64_t most);
  double number(std::string_view key, double otherwise, double least, double most) {
    return find_number(key, least, most).value_or(otherwise);
  }
  bool boolean(std::string_view key, bool otherwise) {
    return find_boolean(key).value_or(otherwise);
  }

  // The value as JSON, for messages.
  std::string spelled(std::string_view key) const;
  void refuse(errc code, std::string detail);
  // Takes over what went wrong in an object read from this one.
  void adopt(const fields& inner);
  const std::optional<error>& failure() const { return failure_; }

 private:
  std::optional<simdjson::dom::element> find(std::string_view key) const;
  void refuse_type(std::string_view key, std::string_view wanted);
  template <class T, class Read>
  std::vector<T> list(std::string_view key, std::string_view wanted, Read read);

  simdjson::dom::object object_;
  std::string where_;
  std::optional<error> failure_;
};

}  // namespace tandem::model
