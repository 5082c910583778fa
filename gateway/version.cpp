#include "gateway/version.hpp"

namespace tandem::gateway {

const std::string_view version = TANDEM_VERSION;

}  // namespace tandem::gateway
