// The version of this program, from CMakeLists.txt.
#pragma once

#include <string_view>

namespace tandem::gateway {

extern const std::string_view version;

}  // namespace tandem::gateway
