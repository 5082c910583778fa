// The version of this program, from CMakeLists.txt.
#pragma once

#include <string_view>

namespace tandem::gateway {

extern const std::string_view version;
// Which commit: nodes of a cluster run the same one.
extern const std::string_view commit;

}  // namespace tandem::gateway
