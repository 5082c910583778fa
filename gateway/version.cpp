#include "gateway/version.hpp"

#include "build_info.hpp"

namespace tandem::gateway {

const std::string_view version = TANDEM_BUILT_VERSION;
const std::string_view commit = TANDEM_BUILT_COMMIT;

}  // namespace tandem::gateway
