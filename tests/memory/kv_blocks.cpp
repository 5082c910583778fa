#include "runtime/memory/kv_blocks.hpp"

#include "runtime/memory/siphash.hpp"

#include <map>
#include <numeric>
#include <random>
#include <set>

using namespace tandem::memory;

namespace {

std::vector<block_hash> chain_of(const std::vector<std::int32_t>& tokens,
                                 std::string_view salt = {}, std::uint64_t version = 1) {
  std::vector<block_hash> chain;
  block_hash tip = hash_seed(version, 0, salt);
  for (std::size_t i = 0; i + 16 <= tokens.size(); i += 16) {
    tip = hash_next(tip, std::span(tokens).subspan(i, 16));
    chain.push_back(tip);
  }
  return chain;
}

std::vector<std::int32_t> counting(int count, int from = 0) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  std::iota(tokens.begin(), tokens.end(), from);
  return tokens;
}

// Computes a prompt's full blocks and gives them back, tail first, as a finished sequence does.
std::vector<block_index> read_and_leave(kv_blocks& book, const std::vector<block_hash>& chain) {
  std::vector<block_index> blocks;
  for (const auto& hash : chain) {
    blocks.push_back(book.allocate().value());
    book.publish(blocks.back(), hash);
  }
  for (auto b = blocks.rbegin(); b != blocks.rend(); ++b) book.release(*b);
  return blocks;
}

}  // namespace

TEST_CASE("siphash gives the digests published with it") {
  std::vector<std::byte> message;
  const sip_key key{0x0706050403020100U, 0x0f0e0d0c0b0a0908U};
  const sip_digest empty = siphash_128(key, message);
  CHECK(empty.low == 0xe6a825ba047f81a3U);
  CHECK(empty.high == 0x930255c71472f66dU);
  message.push_back(std::byte{0});
  const sip_digest one = siphash_128(key, message);
  CHECK(one.low == 0x44af996bd8c187daU);
  CHECK(one.high == 0x45fc229b11597634U);
}

TEST_CASE("a chain's hash says everything before the block's end") {
  const auto tokens = counting(64);
  const auto chain = chain_of(tokens);
  CHECK(chain == chain_of(tokens));
  CHECK(chain[3] != chain_of(tokens, "tenant")[3]);
  CHECK(chain[3] != chain_of(tokens, {}, 2)[3]);
  auto other = tokens;
  other[0] += 1;
  CHECK(chain[3] != chain_of(other)[3]);
  std::swap(other[0], other[1]);
  CHECK(chain[3] != chain_of(other)[3]);
}

TEST_CASE("every block is given out once and then no more") {
  kv_blocks book(3, true);
  std::set<block_index> given;
  for (int i = 0; i < 3; ++i) given.insert(book.allocate().value());
  CHECK(given == std::set<block_index>{0, 1, 2});
  CHECK_FALSE(book.allocate());
  book.release(1);
  CHECK(book.allocate() == 1);
}

TEST_CASE("a known prefix is found again, as far as it agrees") {
  kv_blocks book(8, true);
  const auto chain = chain_of(counting(64));
  const auto blocks = read_and_leave(book, chain);
  CHECK(book.available() == 8);
  CHECK(book.cached() == 4);

  auto fork = counting(64);
  fork[40] = 999;
  const auto found = book.match(chain_of(fork));
  CHECK(found == std::vector<block_index>{blocks[0], blocks[1]});
  CHECK(book.available() == 6);
  CHECK(book.cached() == 2);
  CHECK(book.users(blocks[0]) == 1);
  CHECK(book.match(chain_of(counting(64), "other salt")).empty());
}

TEST_CASE("a cached block is taken for new contents only when no free one is left, oldest first") {
  kv_blocks book(4, true);
  const auto first = chain_of(counting(16, 100));
  const auto second = chain_of(counting(16, 200));
  const auto a = read_and_leave(book, first);
  const auto b = read_and_leave(book, second);
  CHECK(a != b);
  // The first is used again and so becomes the younger one.
  for (const auto block : book.match(first)) book.release(block);
  const auto free_one = book.allocate();
  const auto free_two = book.allocate();
  CHECK(free_one.value() != a[0]);
  CHECK(free_two.value() != b[0]);
  CHECK(book.allocate() == b[0]);
  CHECK(book.match(second).empty());
  CHECK(book.match(first) == a);
}

TEST_CASE("a prefix loses its tail before its head") {
  kv_blocks book(4, true);
  const auto chain = chain_of(counting(64));
  const auto blocks = read_and_leave(book, chain);
  CHECK(book.allocate() == blocks[3]);
  CHECK(book.allocate() == blocks[2]);
  CHECK(book.match(chain).size() == 2);
}

TEST_CASE("the first block to hold a prefix keeps it") {
  kv_blocks book(2, true);
  const auto chain = chain_of(counting(16));
  const auto a = book.allocate().value();
  const auto b = book.allocate().value();
  book.publish(a, chain[0]);
  book.publish(b, chain[0]);
  book.release(b);
  CHECK(book.cached() == 0);
  book.release(a);
  CHECK(book.cached() == 1);
  CHECK(book.match(chain) == std::vector<block_index>{a});
}

TEST_CASE("with the prefix cache off nothing is remembered") {
  kv_blocks book(2, false);
  const auto chain = chain_of(counting(16));
  read_and_leave(book, chain);
  CHECK(book.cached() == 0);
  CHECK(book.match(chain).empty());
}

TEST_CASE("forgetting cached prefixes leaves blocks with their users") {
  kv_blocks book(4, true);
  const auto chain = chain_of(counting(32));
  read_and_leave(book, chain);
  const auto held = book.match(std::span(chain).first(1));
  book.forget_cached();
  CHECK(book.cached() == 0);
  CHECK(book.available() == 3);
  CHECK(book.users(held[0]) == 1);
  CHECK(book.match(chain).empty());
  book.release(held[0]);
  CHECK(book.cached() == 0);
  CHECK(book.available() == 4);
}

TEST_CASE("whatever happens in whatever order, the book agrees with a naive one") {
  const std::uint32_t seed = GENERATE(1U, 2U, 3U, 4U);
  INFO("seed " << seed);
  std::mt19937 random(seed);
  constexpr int count = 24;
  kv_blocks book(count, true);
  std::vector<int> users(count, 0);
  std::map<std::uint64_t, block_index> holder;
  std::vector<block_index> held;
  const auto hash = [](int n) { return hash_next(hash_seed(1, 0, {}), counting(16, n * 16)); };
  const auto drop = [&](block_index b) {
    std::erase_if(holder, [&](const auto& entry) { return entry.second == b; });
  };
  for (int i = 0; i < 20'000; ++i) {
    const int dice = static_cast<int>(random() % 100);
    if (dice < 35) {
      const auto b = book.allocate();
      const auto idle = std::count(users.begin(), users.end(), 0);
      REQUIRE(b.has_value() == (idle > 0));
      if (!b) continue;
      REQUIRE(users[static_cast<std::size_t>(*b)] == 0);
      users[static_cast<std::size_t>(*b)] = 1;
      drop(*b);
      held.push_back(*b);
      if (random() % 2 == 0) {
        const auto h = hash(static_cast<int>(random() % 40));
        book.publish(*b, h);
        holder.emplace(h.low, *b);
      }
    } else if (dice < 60) {
      const auto h = hash(static_cast<int>(random() % 40));
      const auto found = book.match(std::span(&h, 1));
      const auto known = holder.find(h.low);
      REQUIRE(found.size() == (known == holder.end() ? 0U : 1U));
      if (found.empty()) continue;
      REQUIRE(found[0] == known->second);
      ++users[static_cast<std::size_t>(found[0])];
      held.push_back(found[0]);
    } else if (!held.empty()) {
      const std::size_t which = random() % held.size();
      book.release(held[which]);
      --users[static_cast<std::size_t>(held[which])];
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(which));
    }
    if (random() % 1000 == 0) {
      book.forget_cached();
      holder.clear();
    }
    const auto idle = std::count(users.begin(), users.end(), 0);
    REQUIRE(book.available() == idle);
    const auto cached = std::count_if(holder.begin(), holder.end(), [&](const auto& entry) {
      return users[static_cast<std::size_t>(entry.second)] == 0;
    });
    REQUIRE(book.cached() == cached);
  }
}
