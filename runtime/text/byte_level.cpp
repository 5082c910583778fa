#include "runtime/text/byte_level.hpp"

#include "runtime/text/utf8.hpp"

#include <array>

namespace tandem::text {
namespace {

struct alphabet {
  std::array<char32_t, 256> of_byte{};
  std::array<int, 0x180> of_character{};  // -1: not of the alphabet

  alphabet() {
    of_character.fill(-1);
    char32_t next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      of_byte[byte] = printable ? byte : next++;
      of_character[of_byte[byte]] = static_cast<int>(byte);
    }
  }
};

const alphabet& letters() {
  static const alphabet a;
  return a;
}

}  // namespace

std::string to_byte_level(std::string_view text) {
  std::string out;
  out.reserve(text.size() * 2);
  for (const char byte : text)
    append_utf8(out, letters().of_byte[static_cast<unsigned char>(byte)]);
  return out;
}

std::optional<std::string> from_byte_level(std::string_view spelling) {
  std::string out;
  out.reserve(spelling.size());
  for (std::size_t at = 0; at < spelling.size();) {
    const char32_t c = next_character(spelling, at);
    if (c >= letters().of_character.size() || letters().of_character[c] < 0) return std::nullopt;
    out += static_cast<char>(static_cast<unsigned char>(letters().of_character[c]));
  }
  return out;
}

}  // namespace tandem::text
