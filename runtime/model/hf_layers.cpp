// Which layers see a window, and which turn nothing: `layer_types` and its like, or each family's
// rule.
#include "runtime/model/hf_layers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace tandem::model {

namespace {

// EXAONE 4: a number, or letters of one period ("LLLG").
std::int64_t exaone_period(fields& text) {
  if (!text.has("sliding_window_pattern")) return 4;
  if (text.spelled("sliding_window_pattern").starts_with('"')) {
    const auto letters = text.find_string("sliding_window_pattern").value_or("");
    if (!letters.empty() && letters.find('G') + 1 == letters.size()) return std::ssize(letters);
    text.refuse(errc::unsupported, fmt::format("sliding_window_pattern = {} is not known",
                                               text.spelled("sliding_window_pattern")));
    return 1;
  }
  return text.integer("sliding_window_pattern", 4, 1, bounds::layers);
}

// SmolLM3: `no_rope_layers` has a 0 for each layer that turns nothing.
void read_turned_layers(fields& text, model_config& config) {
  const auto flags = text.integers("no_rope_layers", 0, 1);
  const auto interval = text.integer("no_rope_layer_interval", 4, 1, bounds::layers);
  if (!flags.empty() && flags.size() < config.layers.size())
    text.refuse(errc::bad_file, fmt::format("no_rope_layers names {} layers of {}", flags.size(),
                                            config.layers.size()));
  for (std::size_t i = 0; i < config.layers.size(); ++i) {
    const bool turns =
        i < flags.size() ? flags[i] != 0 : (static_cast<std::int64_t>(i) + 1) % interval != 0;
    config.layers[i].rope = turns ? 0 : 1;
  }
}

// Which layers see a window only, when there is one: `layer_types` says it outright, otherwise each
// family has its rule.
std::vector<bool> windowed_layers(fields& text, const family_traits& family,
                                  const model_config& config, bool has_window) {
  const auto count = config.layers.size();
  std::vector<bool> windowed(count, false);
  const auto types = text.strings("layer_types");
  if (!types.empty()) {
    if (types.size() != count)
      text.refuse(errc::bad_file,
                  fmt::format("layer_types names {} layers of {}", types.size(), count));
    for (std::size_t i = 0; i < std::min(count, types.size()); ++i) {
      windowed[i] = types[i] == "sliding_attention";
      if (!windowed[i] && types[i] != "full_attention")
        text.refuse(errc::unsupported,
                    fmt::format("layer_types: '{}' is not known (full_attention and "
                                "sliding_attention are)",
                                types[i]));
    }
    return windowed;
  }
  std::int64_t first = 0;   // qwen: full attention below it
  std::int64_t period = 0;  // gemma: every period-th layer is full
  if (family.name == "qwen2" || family.name == "qwen3")
    first = text.integer("max_window_layers", 28, 0, bounds::token_id);
  if (family.gemma && family.post_norms)
    period = text.integer(
        "sliding_window_pattern",
        text.integer("_sliding_window_pattern", family.local_rope ? 6 : 2, 1, bounds::layers), 1,
        bounds::layers);
  if (family.name == "olmo3") period = 4;
  if (family.name == "exaone4") period = exaone_period(text);
  for (std::size_t i = 0; i < count; ++i) {
    const auto number = static_cast<std::int64_t>(i);
    if (family.skips_rope && config.layers[i].rope == 0) continue;
    windowed[i] = has_window && number >= first && (period == 0 || (number + 1) % period != 0);
  }
  return windowed;
}

}  // namespace

void read_layers(fields& text, const family_traits& family, model_config& config) {
  if (family.skips_rope) read_turned_layers(text, config);
  // These have no windows, whatever the file says.
  const bool full = family.name == "llama" || family.name == "gemma" || family.multipliers ||
                    family.name == "olmo2" || family.name == "seed_oss";
  const bool switched = family.name == "qwen2" || family.name == "qwen3_moe" ||
                        family.name == "qwen3" || family.skips_rope;
  std::int64_t window = 0;
  if (!full)
    window =
        text.integer("sliding_window", family.post_norms && family.name != "exaone4" ? 4096 : 0, 1,
                     bounds::context_length);
  if (switched && !text.boolean("use_sliding_window", false)) window = 0;

  const auto windowed = windowed_layers(text, family, config, window > 0);
  for (std::size_t i = 0; i < config.layers.size(); ++i) {
    // EXAONE 4 with windows turns nothing where it sees everything.
    if (family.name == "exaone4" && window > 0) config.layers[i].rope = windowed[i] ? 0 : 1;
    if (!windowed[i]) continue;
    if (window == 0) {
      text.refuse(errc::bad_file, fmt::format("layer {} has a window, and sliding_window is {}", i,
                                              text.spelled("sliding_window")));
      return;
    }
    config.layers[i].window = static_cast<int>(window);
    if (family.local_rope) config.layers[i].rope = config.ropes.size() > 1 ? 1 : 0;
  }
}

}  // namespace tandem::model
