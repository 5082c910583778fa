// Answers of a server as the commands read them: what is not told is empty, not an error.
#pragma once

#include "runtime/text/value.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tandem::gateway::command {

// The member of that name; null when this is no object or has none.
const text::value& member(const text::value& object, std::string_view key);
// A string's own words, nothing for null, else JSON.
std::string words(const text::value& v);
std::optional<double> number(const text::value& v);
double number_or(const text::value& v, double otherwise);
std::int64_t integer_or(const text::value& v, std::int64_t otherwise);
// Empty when it is no list.
const text::value::array& list(const text::value& v);

}  // namespace tandem::gateway::command
