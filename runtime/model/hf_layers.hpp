// The layers of a config.json.
#pragma once

#include "runtime/model/families.hpp"
#include "runtime/model/fields.hpp"
#include "runtime/model/model_config.hpp"

namespace tandem::model {

// Sets window and rope of config.layers, whose number and ropes are known; what is not known here
// is refused in `text`.
void read_layers(fields& text, const family_traits& family, model_config& config);

}  // namespace tandem::model
