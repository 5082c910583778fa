// Everything under /v1, and the routes that show a prompt as the model sees it.
#pragma once

#include "gateway/engine.hpp"
#include "gateway/http.hpp"
#include "runtime/settings.hpp"
#include "runtime/store/store.hpp"

#include <functional>
#include <memory>

namespace tandem::gateway {

// Those that need the engine alone: texts, tokens, models.
void add_text_routes(router& to, std::shared_ptr<engine> door, const settings& s);

// These and all others. Without a store, files and jobs answer 501. What it returns ends the live
// event streams: call it before the server drains, which would wait for them.
std::function<void()> add_openai_routes(router& to, std::shared_ptr<engine> door, const settings& s,
                                        std::shared_ptr<store::store> files = nullptr);

}  // namespace tandem::gateway
