// Reading one object of a tokenizer file: members by name and type. The first thing wrong is kept,
// with the name of the object, so that a reader can ask for all it needs and check once.
#pragma once

#include "runtime/result.hpp"

#include <fmt/format.h>
#include <simdjson.h>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::text {

class json_reader {
 public:
  json_reader(simdjson::dom::element from, std::string name) : name_(std::move(name)) {
    if (from.get(object_) != simdjson::SUCCESS) fail("is not an object");
  }

  // Nothing when the member is missing or null.
  std::optional<simdjson::dom::element> find(std::string_view key) const {
    simdjson::dom::element found;
    if (failed() || object_.at_key(key).get(found) != simdjson::SUCCESS || found.is_null()) {
      return std::nullopt;
    }
    return found;
  }
  std::optional<std::string_view> text(std::string_view key) {
    return get<std::string_view>(key, "text");
  }
  std::string_view needed_text(std::string_view key) {
    const auto found = text(key);
    if (!found) fail(fmt::format("lacks '{}'", key));
    return found.value_or(std::string_view());
  }
  bool flag(std::string_view key, bool otherwise) {
    return get<bool>(key, "true or false").value_or(otherwise);
  }
  std::optional<std::int64_t> integer(std::string_view key) {
    return get<std::int64_t>(key, "an integer");
  }
  std::optional<simdjson::dom::array> array(std::string_view key) {
    return get<simdjson::dom::array>(key, "an array");
  }
  // Copied: a default-made simdjson array cannot be walked.
  std::vector<simdjson::dom::element> needed_array(std::string_view key) {
    const auto found = array(key);
    if (!found) {
      fail(fmt::format("lacks '{}'", key));
      return {};
    }
    return {found->begin(), found->end()};
  }
  std::optional<simdjson::dom::object> object(std::string_view key) {
    return get<simdjson::dom::object>(key, "an object");
  }

  void fail(std::string_view what, errc code = errc::bad_file) {
    if (!why_) why_ = tandem::error{code, fmt::format("{} {}", name_, what), {}};
  }
  bool failed() const { return why_.has_value(); }
  const tandem::error& error() const { return *why_; }
  const std::string& name() const { return name_; }

 private:
  template <class T>
  std::optional<T> get(std::string_view key, std::string_view kind) {
    const auto found = find(key);
    if (!found) return std::nullopt;
    T value;
    if (found->get(value) == simdjson::SUCCESS) return value;
    fail(fmt::format("has a '{}' that is not {}", key, kind));
    return std::nullopt;
  }

  simdjson::dom::object object_;
  std::string name_;
  std::optional<tandem::error> why_;
};

}  // namespace tandem::text
