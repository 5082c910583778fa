#include "runtime/text/string_table.hpp"

#include <bit>
#include <cstring>

namespace tandem::text {
namespace {

constexpr std::uint64_t odd = 0x9E3779B97F4A7C15;

std::uint64_t mix(std::uint64_t x) {
  x ^= x >> 32;
  x *= odd;
  return x ^ (x >> 29);
}

std::uint64_t hash(std::string_view key) {
  std::uint64_t state = key.size() * odd;
  std::size_t at = 0;
  for (; at + 8 <= key.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, key.data() + at, 8);
    state = mix(state ^ word) * odd;
  }
  std::uint64_t rest = 0;
  if (at < key.size()) std::memcpy(&rest, key.data() + at, key.size() - at);
  return mix(mix(state ^ rest) * odd);
}

std::uint32_t tag_of(std::uint64_t h) { return static_cast<std::uint32_t>(h >> 32); }

std::uint64_t pair_key(token_id left, token_id right) {
  return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32) |
         static_cast<std::uint32_t>(right);
}

}  // namespace

void string_table::reserve(std::size_t count, std::size_t bytes) {
  entries_.reserve(count);
  bytes_.reserve(bytes);
  grow(std::bit_ceil(count * 2 + 16));
}

void string_table::grow(std::size_t slots) {
  if (slots <= slots_.size()) return;
  slots_.assign(slots, 0);
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const std::string_view key(bytes_.data() + entries_[i].begin, entries_[i].length);
    std::size_t at = hash(key) & (slots_.size() - 1);
    while (slots_[at] != 0) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = static_cast<std::uint32_t>(i + 1);
  }
}

void string_table::insert(std::string_view key, token_id id) {
  if (entries_.size() * 2 + 16 > slots_.size()) grow(std::bit_ceil(entries_.size() * 4 + 32));
  const std::uint64_t h = hash(key);
  std::size_t at = h & (slots_.size() - 1);
  for (; slots_[at] != 0; at = (at + 1) & (slots_.size() - 1)) {
    const entry& e = entries_[slots_[at] - 1];
    if (std::string_view(bytes_.data() + e.begin, e.length) == key) return;
  }
  entries_.push_back({static_cast<std::uint32_t>(bytes_.size()),
                      static_cast<std::uint32_t>(key.size()), tag_of(h), id});
  bytes_ += key;
  slots_[at] = static_cast<std::uint32_t>(entries_.size());
}

token_id string_table::find(std::string_view key) const {
  if (slots_.empty()) return no_token;
  const std::uint64_t h = hash(key);
  for (std::size_t at = h & (slots_.size() - 1); slots_[at] != 0;
       at = (at + 1) & (slots_.size() - 1)) {
    const entry& e = entries_[slots_[at] - 1];
    if (e.tag == tag_of(h) && e.length == key.size() &&
        std::memcmp(bytes_.data() + e.begin, key.data(), key.size()) == 0) {
      return e.id;
    }
  }
  return no_token;
}

void merge_table::reserve(std::size_t count) {
  const std::size_t wanted = std::bit_ceil(count * 2 + 16);
  if (wanted <= slots_.size()) return;
  std::vector<slot> old(wanted);
  old.swap(slots_);
  count_ = 0;
  for (const slot& s : old) {
    if (s.value.found()) {
      insert(static_cast<token_id>(s.key >> 32), static_cast<token_id>(s.key & UINT32_MAX),
             s.value);
    }
  }
}

void merge_table::insert(token_id left, token_id right, merge m) {
  if (count_ * 2 + 16 > slots_.size()) reserve(count_ * 2 + 16);
  const std::uint64_t key = pair_key(left, right);
  std::size_t at = mix(key * odd) & (slots_.size() - 1);
  while (slots_[at].value.found() && slots_[at].key != key) at = (at + 1) & (slots_.size() - 1);
  if (!slots_[at].value.found()) ++count_;
  slots_[at] = {key, m};
}

merge merge_table::find(token_id left, token_id right) const {
  if (slots_.empty()) return {};
  const std::uint64_t key = pair_key(left, right);
  for (std::size_t at = mix(key * odd) & (slots_.size() - 1); slots_[at].value.found();
       at = (at + 1) & (slots_.size() - 1)) {
    if (slots_[at].key == key) return slots_[at].value;
  }
  return {};
}

}  // namespace tandem::text
