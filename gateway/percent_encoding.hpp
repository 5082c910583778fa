// Percent-encoding of paths and queries (RFC 3986, section 2.1).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace tandem::gateway {

// Nothing when an escape is broken or yields NUL. In a query '+' is a space.
std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space = false);

}  // namespace tandem::gateway
