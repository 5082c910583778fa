#include "runtime/memory/kv_blocks.hpp"

#include "kernels/ensure.hpp"
#include "runtime/memory/siphash.hpp"

#include <array>
#include <bit>
#include <cstring>
#include <random>

namespace tandem::memory {
namespace {

constexpr block_index none = -1;

// Drawn once a process. Hashes are only ever compared for equality, so nothing that anyone can see
// depends on the key, and a user who cannot read our memory cannot make two prompts collide.
const sip_key& process_key() {
  static const sip_key key = [] {
    std::random_device random;
    const auto word = [&] { return (std::uint64_t{random()} << 32U) | random(); };
    const std::uint64_t low = word();
    return sip_key{low, word()};
  }();
  return key;
}

block_hash hash_of(const sip_key& key, std::span<const std::byte> message) {
  const sip_digest d = siphash_128(key, message);
  return {d.low, d.high};
}

}  // namespace

block_hash hash_seed(std::uint64_t weights_version, std::uint64_t variant, std::string_view salt) {
  std::vector<std::byte> message(sizeof weights_version + sizeof variant + salt.size());
  std::memcpy(message.data(), &weights_version, sizeof weights_version);
  std::memcpy(message.data() + sizeof weights_version, &variant, sizeof variant);
  if (!salt.empty()) {
    std::memcpy(message.data() + sizeof weights_version + sizeof variant, salt.data(), salt.size());
  }
  // A key of its own: no salt can be mistaken for a block.
  const sip_key& key = process_key();
  return hash_of({key.low ^ 0x5eedU, key.high}, message);
}

block_hash hash_next(const block_hash& before, std::span<const std::int32_t> tokens) {
  ensure(tokens.size() == kernels::kv_block_positions, "a block hash covers one full block");
  std::array<std::byte, 16 + 4 * kernels::kv_block_positions> message{};
  std::memcpy(message.data(), &before.low, 8);
  std::memcpy(message.data() + 8, &before.high, 8);
  std::memcpy(message.data() + 16, tokens.data(), tokens.size_bytes());
  return hash_of(process_key(), message);
}

// Blocks without a user stand in one list, the next to be taken first: those that hold no prefix
// at the front, cached ones by the time of their last use behind. A table of chains finds a block
// by hash. Both are links inside `blocks`, so every operation is O(1) and allocates nothing.
struct kv_blocks::state {
  struct block {
    block_hash hash;
    std::int32_t users = 0;
    block_index previous = none;  // in the list of blocks without a user
    block_index next = none;
    block_index chained = none;  // the next one of this bucket
    bool published = false;
  };

  std::vector<block> blocks;
  std::vector<block_index> buckets;
  block_index first = none;
  block_index last = none;
  std::int64_t available = 0;
  std::int64_t cached = 0;
  bool prefix_cache = true;

  block& at(block_index b) {
    ensure(b >= 0 && static_cast<std::size_t>(b) < blocks.size(), "no such KV block");
    return blocks[static_cast<std::size_t>(b)];
  }
  block_index& bucket_of(const block_hash& hash) {
    return buckets[hash.low & (buckets.size() - 1)];
  }

  block_index find(const block_hash& hash) {
    block_index b = bucket_of(hash);
    while (b != none && at(b).hash != hash) b = at(b).chained;
    return b;
  }
  void forget(block_index b) {
    block_index* link = &bucket_of(at(b).hash);
    while (*link != b) link = &at(*link).chained;
    *link = at(b).chained;
    at(b).chained = none;
    at(b).published = false;
  }

  void append(block_index b) {
    at(b).previous = last;
    at(b).next = none;
    (last == none ? first : at(last).next) = b;
    last = b;
  }
  void prepend(block_index b) {
    at(b).previous = none;
    at(b).next = first;
    (first == none ? last : at(first).previous) = b;
    first = b;
  }
  void unlink(block_index b) {
    block& x = at(b);
    (x.previous == none ? first : at(x.previous).next) = x.next;
    (x.next == none ? last : at(x.next).previous) = x.previous;
    x.previous = x.next = none;
  }

  void add_user(block_index b) {
    block& x = at(b);
    if (x.users++ > 0) return;
    unlink(b);
    --available;
    if (x.published) --cached;
  }
};

kv_blocks::kv_blocks(std::int64_t count, bool prefix_cache) : state_(std::make_unique<state>()) {
  ensure(count >= 0 && count < (std::int64_t{1} << 31), "KV block count out of range");
  state& s = *state_;
  s.prefix_cache = prefix_cache;
  s.blocks.resize(static_cast<std::size_t>(count));
  s.buckets.assign(std::bit_ceil(static_cast<std::size_t>(count) + 1) * 2, none);
  for (std::int64_t b = 0; b < count; ++b) s.append(static_cast<block_index>(b));
  s.available = count;
}
kv_blocks::~kv_blocks() = default;

std::optional<block_index> kv_blocks::allocate() {
  state& s = *state_;
  if (s.first == none) return std::nullopt;
  const block_index b = s.first;
  s.add_user(b);
  if (s.at(b).published) s.forget(b);
  return b;
}

std::vector<block_index> kv_blocks::match(std::span<const block_hash> chain) {
  std::vector<block_index> found;
  for (const block_hash& hash : chain) {
    const block_index b = state_->find(hash);
    if (b == none) break;
    state_->add_user(b);
    found.push_back(b);
  }
  return found;
}

bool kv_blocks::holds(const block_hash& hash) const { return state_->find(hash) != none; }

void kv_blocks::share(block_index block) {
  ensure(state_->at(block).users > 0, "sharing a KV block nobody uses");
  ++state_->at(block).users;
}

void kv_blocks::release(block_index block) {
  state& s = *state_;
  state::block& x = s.at(block);
  ensure(x.users > 0, "releasing a KV block nobody uses");
  if (--x.users > 0) return;
  ++s.available;
  if (x.published) {
    ++s.cached;
    s.append(block);
  } else {
    s.prepend(block);
  }
}

void kv_blocks::publish(block_index block, const block_hash& hash) {
  state& s = *state_;
  state::block& x = s.at(block);
  ensure(x.users > 0, "publishing a KV block nobody uses");
  if (!s.prefix_cache) return;
  if (x.published) {
    ensure(x.hash == hash, "a published KV block changed its contents");
    return;
  }
  if (s.find(hash) != none) return;
  x.hash = hash;
  x.published = true;
  x.chained = s.bucket_of(hash);
  s.bucket_of(hash) = block;
}

void kv_blocks::forget_cached() {
  state& s = *state_;
  for (std::size_t b = 0; b < s.blocks.size(); ++b) {
    if (s.blocks[b].published) s.forget(static_cast<block_index>(b));
  }
  s.cached = 0;
}

std::int64_t kv_blocks::count() const { return static_cast<std::int64_t>(state_->blocks.size()); }
std::int64_t kv_blocks::available() const { return state_->available; }
std::int64_t kv_blocks::cached() const { return state_->cached; }
int kv_blocks::users(block_index block) const { return state_->at(block).users; }

}  // namespace tandem::memory
