// SipHash-2-4 with 128 bits out (Aumasson & Bernstein 2012, "SipHash: a fast short-input PRF"): a
// keyed hash whose collisions cannot be made by someone who does not know the key. Faster unkeyed
// or weakly keyed hashes were passed over: a user chooses the tokens, and a made collision would
// read another user's cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tandem::memory {

struct sip_key {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
};
struct sip_digest {
  std::uint64_t low = 0;  // the first eight bytes of the digest, little-endian
  std::uint64_t high = 0;
};

sip_digest siphash_128(const sip_key& key, std::span<const std::byte> message);

}  // namespace tandem::memory
