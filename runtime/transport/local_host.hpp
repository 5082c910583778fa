// By which of its addresses this machine is reached.
#pragma once

#include "runtime/result.hpp"

#include <string>

namespace tandem::transport {

// The address of this machine, without a port, from which `there` ("HOST:PORT") is reached.
result<std::string> local_host_towards(const std::string& there);

}  // namespace tandem::transport
