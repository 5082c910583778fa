// UTF-8 and the classes of characters that tokenizers ask about. Functions that take text expect
// valid UTF-8; `valid_utf8` makes it so at the door.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tandem::text {

// A part of a text: bytes [begin, end).
struct text_range {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::size_t size() const { return end - begin; }
  bool operator==(const text_range&) const = default;
};

inline std::string_view slice(std::string_view text, text_range r) {
  return text.substr(r.begin, r.size());
}

// The bytes of the character that begins with `lead`; 1 for what begins none.
inline std::size_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// The character at `at` of valid UTF-8; `at` moves behind it.
char32_t next_character(std::string_view text, std::size_t& at);
// The character that ends at `end` (> 0) of valid UTF-8.
char32_t character_before(std::string_view text, std::size_t end);
void append_utf8(std::string& out, char32_t character);

// `text` itself when it is valid, else a copy in `storage` with each broken part as one U+FFFD (the
// longest beginning of a character counts as one part, as in the Unicode standard, section 3.9).
std::string_view valid_utf8(std::string_view text, std::string& storage);
// Moves the characters of `bytes` to `out`, broken parts as U+FFFD. With `more_to_come` the
// beginning of a character at the end stays in `bytes`.
void move_characters(std::string& bytes, std::string& out, bool more_to_come);

bool is_white_space(char32_t c);      // Unicode White_Space
bool is_numeric(char32_t c);          // categories Nd, Nl, No
bool is_word(char32_t c);             // \w as in UTS 18: letters, marks, decimal digits, connectors
bool is_punctuation(char32_t c);      // ASCII punctuation and categories P*
bool is_mark(char32_t c);             // categories M*
bool is_nonspacing_mark(char32_t c);  // category Mn
char32_t to_lower(char32_t c);        // the simple mapping

}  // namespace tandem::text
