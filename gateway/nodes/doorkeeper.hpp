// What the head tells the doors of its nodes, from its settings.
#pragma once

#include "actors/doorkeeper.hpp"
#include "gateway/engine.hpp"
#include "runtime/result.hpp"
#include "runtime/settings.hpp"

#include <functional>
#include <string>

namespace tandem::gateway {

// `chat_template`: the text that stands in for the model's own; `port`: of the head's server.
// Refused: a file that the doors need cannot be read.
result<std::function<actors::door_terms()>> terms_for_doors(const settings& configuration,
                                                            const served_model& model,
                                                            std::string chat_template, int port,
                                                            int inside_max);

}  // namespace tandem::gateway
