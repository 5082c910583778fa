// "Did you mean": the known name nearest to a misspelt one.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace tandem {

// Levenshtein's distance with swaps of neighbours counted once (optimal string alignment).
std::size_t edit_distance(std::string_view a, std::string_view b);

// The known name within a third of the word's length (at least 2 edits) that is nearest to `word`;
// the first of equals. Nothing when none is near.
std::optional<std::string> nearest_name(std::string_view word,
                                        std::span<const std::string> known_names);

}  // namespace tandem
