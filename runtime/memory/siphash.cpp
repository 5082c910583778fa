#include "runtime/memory/siphash.hpp"

#include <bit>
#include <cstring>

namespace tandem::memory {
namespace {

struct sip_state {
  std::uint64_t a, b, c, d;

  void rounds(int count) {
    for (int i = 0; i < count; ++i) {
      a += b;
      b = std::rotl(b, 13) ^ a;
      a = std::rotl(a, 32);
      c += d;
      d = std::rotl(d, 16) ^ c;
      a += d;
      d = std::rotl(d, 21) ^ a;
      c += b;
      b = std::rotl(b, 17) ^ c;
      c = std::rotl(c, 32);
    }
  }
  void absorb(std::uint64_t word) {
    d ^= word;
    rounds(2);
    a ^= word;
  }
};

}  // namespace

sip_digest siphash_128(const sip_key& key, std::span<const std::byte> message) {
  // The four constants spell "somepseudorandomlygeneratedbytes"; 0xee marks the 128-bit variant.
  sip_state s{key.low ^ 0x736f6d6570736575U, key.high ^ 0x646f72616e646f6dU ^ 0xeeU,
              key.low ^ 0x6c7967656e657261U, key.high ^ 0x7465646279746573U};
  std::size_t i = 0;
  for (; i + 8 <= message.size(); i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, message.data() + i, 8);
    s.absorb(word);
  }
  std::uint64_t last = static_cast<std::uint64_t>(message.size()) << 56U;
  for (std::size_t j = 0; i + j < message.size(); ++j) {
    last |= std::to_integer<std::uint64_t>(message[i + j]) << (8 * j);
  }
  s.absorb(last);
  s.c ^= 0xeeU;
  s.rounds(4);
  sip_digest digest{s.a ^ s.b ^ s.c ^ s.d, 0};
  s.b ^= 0xddU;
  s.rounds(4);
  digest.high = s.a ^ s.b ^ s.c ^ s.d;
  return digest;
}

}  // namespace tandem::memory
