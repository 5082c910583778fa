#include "runtime/text/charsmap.hpp"

#include <fmt/format.h>

namespace tandem::text {
namespace {

std::uint32_t read_u32(std::string_view bytes, std::size_t at) {
  std::uint32_t out = 0;
  for (std::size_t i = 4; i-- > 0;) out = (out << 8) | static_cast<unsigned char>(bytes[at + i]);
  return out;
}

// A unit of a darts-clone array.
std::uint32_t label(std::uint32_t unit) { return unit & ((1U << 31) | 0xFF); }
std::uint32_t offset(std::uint32_t unit) { return (unit >> 10) << ((unit & (1U << 9)) >> 6); }
bool has_leaf(std::uint32_t unit) { return ((unit >> 8) & 1) == 1; }
std::uint32_t leaf_value(std::uint32_t unit) { return unit & ((1U << 31) - 1); }

}  // namespace

result<charsmap> charsmap::parse(std::string_view blob) {
  const std::size_t size = blob.size() < 4 ? 0 : read_u32(blob, 0);
  if (blob.size() < 8 || size == 0 || size % 4 != 0 || size > blob.size() - 4) {
    return error{
        errc::bad_file,
        fmt::format("a precompiled character map of {} bytes with a trie of {}", blob.size(), size),
        {}};
  }
  charsmap map;
  map.units_.reserve(size / 4);
  for (std::size_t at = 4; at < 4 + size; at += 4) map.units_.push_back(read_u32(blob, at));
  map.texts_ = blob.substr(4 + size);
  return map;
}

std::optional<charsmap::replacement> charsmap::shortest(std::string_view text) const {
  return search(text, true);
}

std::optional<charsmap::replacement> charsmap::longest(std::string_view text) const {
  return search(text, false);
}

std::optional<charsmap::replacement> charsmap::search(std::string_view text, bool first) const {
  std::optional<replacement> found;
  std::size_t node = offset(units_[0]);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == 0) break;
    node ^= byte;
    if (node >= units_.size() || label(units_[node]) != byte) break;
    const std::uint32_t unit = units_[node];
    node ^= offset(unit);
    if (node >= units_.size()) break;
    if (!has_leaf(unit)) continue;
    const std::size_t begin = leaf_value(units_[node]);
    if (begin > texts_.size()) break;
    const std::size_t end = std::min(texts_.find('\0', begin), texts_.size());
    found = replacement{i + 1, std::string_view(texts_).substr(begin, end - begin)};
    if (first) break;
  }
  return found;
}

}  // namespace tandem::text
