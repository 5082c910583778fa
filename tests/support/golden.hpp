// The truth under tests/golden, read as plain numbers.
#pragma once

#include <simdjson.h>
#include <catch2/catch.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace tandem::test {

inline std::filesystem::path golden(const std::filesystem::path& file) {
  return std::filesystem::path(TANDEM_GOLDEN) / file;
}

// A parsed golden file; elements of it stay valid as long as it lives.
class golden_json {
 public:
  explicit golden_json(const std::filesystem::path& file) {
    INFO(golden(file));
    REQUIRE(parser_.load(golden(file).string()).get(root_) == simdjson::SUCCESS);
  }
  simdjson::dom::element root() const { return root_; }

 private:
  simdjson::dom::parser parser_;
  simdjson::dom::element root_;
};

inline std::vector<std::int32_t> ids_of(simdjson::dom::element list) {
  std::vector<std::int32_t> ids;
  for (const auto id : list.get_array())
    ids.push_back(static_cast<std::int32_t>(id.get_int64().value()));
  return ids;
}

inline std::vector<double> numbers_of(simdjson::dom::element list) {
  std::vector<double> numbers;
  for (const auto number : list.get_array()) numbers.push_back(number.get_double().value());
  return numbers;
}

}  // namespace tandem::test
