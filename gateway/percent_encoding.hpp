// Percent-encoding of paths and queries (RFC 3986, section 2.1).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace tandem::gateway {

// Nothing when an escape is broken or yields NUL. In a query '+' is a space.
std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space = false);

// A decoded path as it stands in a request's first line.
std::string percent_encode_path(std::string_view path);

}  // namespace tandem::gateway
