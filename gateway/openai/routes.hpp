// Everything under /v1, and the routes that show a prompt as the model sees it.
#pragma once

#include "gateway/engine.hpp"
#include "gateway/http.hpp"
#include "runtime/settings.hpp"

#include <memory>

namespace tandem::gateway {

void add_openai_routes(router& to, std::shared_ptr<engine> door, const settings& s);

}  // namespace tandem::gateway
