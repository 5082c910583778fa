// GPT-2's printable alphabet: every byte has a character, and back. Spellings of byte-level
// vocabularies are written in it ("Ġthe" is " the").
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace tandem::text {

// The bytes of `text`, one character of the alphabet each.
std::string to_byte_level(std::string_view text);
// Back again; nothing when a character is not of the alphabet. `spelling` is valid UTF-8.
std::optional<std::string> from_byte_level(std::string_view spelling);

}  // namespace tandem::text
