// The book of a fixed number of KV blocks: who uses each, and which hold a known prefix. A block's
// hash covers weights version, variant, salt, and every token from the prompt's start to the
// block's end, so equal hashes mean equal contents. Blocks nobody uses stay cached until they are
// needed (least recently used first). Pure bookkeeping: no memory is touched here.
#pragma once

#include "kernels/backend.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace tandem::memory {

using block_index = std::int32_t;

struct block_hash {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  bool operator==(const block_hash&) const = default;
};

// The seed of a chain: what must be equal before any token is compared. `variant` tells versions
// apart that are served beside the base (0), whatever number each job gave its own.
block_hash hash_seed(std::uint64_t weights_version, std::uint64_t variant, std::string_view salt);
// The hash of the next full block of `kernels::kv_block_positions` tokens.
block_hash hash_next(const block_hash& before, std::span<const std::int32_t> tokens);

class kv_blocks {
 public:
  kv_blocks(std::int64_t count, bool prefix_cache);
  ~kv_blocks();

  // One block for a single user, contents undefined; nothing when none is free.
  std::optional<block_index> allocate();
  // The longest run of cached blocks that begins this chain; each gains a user.
  std::vector<block_index> match(std::span<const block_hash> chain);
  // Is this block's content here? Nobody gains or loses anything by the question.
  bool holds(const block_hash& hash) const;
  void share(block_index block);    // one more user
  void release(block_index block);  // one user fewer; the last leaves it cached or free
  // The block's contents are complete and are what this hash says. No effect when the hash is
  // already held by another block or the cache is off.
  void publish(block_index block, const block_hash& hash);
  // Forgets every cached prefix (blocks in use stay in use).
  void forget_cached();

  std::int64_t count() const;
  std::int64_t available() const;  // free, or cached without a user
  std::int64_t cached() const;     // cached without a user
  int users(block_index block) const;

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace tandem::memory
