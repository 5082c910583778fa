// One line of JSON as a value, with what is wrong said so that the line can be found and mended.
// Stricter than requests: a key that is there twice is refused, since one of the two would be lost.
#pragma once

#include "runtime/text/value.hpp"
#include "runtime/train/dataset.hpp"

#include <simdjson.h>

#include <optional>
#include <string>
#include <string_view>

namespace tandem::train {

class json_line {
 public:
  // Null and one fault when it is not an object of JSON.
  std::optional<text::value> parse(std::string_view json, fault& wrong);

 private:
  simdjson::dom::parser parser_;
  std::string padded_;
};

}  // namespace tandem::train
