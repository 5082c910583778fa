// Unknown fields are ignored, as OpenAI's server does, but "temprature" was surely meant to do
// something: the nearest known name, when one is near enough to be meant.
#pragma once

#include <span>
#include <string_view>

namespace tandem::gateway::openai {

// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment) between
// the two, upper case and underscores aside. Stops counting above `most`.
int misspelling_distance(std::string_view a, std::string_view b, int most = 3);

// Empty when nothing is near: one slip in short names, two in longer ones.
std::string_view nearest_name(std::string_view unknown, std::span<const std::string_view> known);

}  // namespace tandem::gateway::openai
