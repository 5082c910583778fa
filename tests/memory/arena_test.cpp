#include "runtime/memory/arena.hpp"

#include <algorithm>
#include <cstdint>

using namespace tandem;
using namespace tandem::memory;

TEST_CASE("an arena is zeroed, aligned, and in the ledger for as long as it lives") {
  ledger book(64 << 20);
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{5000}, std::size_t{5 << 20}}) {
    {
      auto made = arena::reserve(book, owner::kv_blocks, bytes, "blocks");
      REQUIRE(made);
      CHECK(book.used_by(owner::kv_blocks) == bytes);
      CHECK(made->bytes().size() == bytes);
      CHECK(reinterpret_cast<std::uintptr_t>(made->bytes().data()) % 4096 == 0);
      CHECK(std::all_of(made->bytes().begin(), made->bytes().end(),
                        [](std::byte b) { return b == std::byte{0}; }));
      std::fill(made->bytes().begin(), made->bytes().end(), std::byte{1});
    }
    CHECK(book.used() == 0);
  }
}

TEST_CASE("an arena hands out aligned pieces one behind the other") {
  ledger book(1 << 20);
  auto made = arena::reserve(book, owner::weights, 1000, "weights");
  REQUIRE(made);
  const auto first = made->take(10);
  const auto second = made->take(100);
  const auto third = made->take(500, 256);
  CHECK(second.data() == first.data() + 64);
  CHECK(third.data() == first.data() + 256);
  CHECK(made->used() == 756);
}

TEST_CASE("an arena that moves stays where it is and is released once") {
  ledger book(1 << 20);
  {
    auto made = arena::reserve(book, owner::weights, 5000, "weights");
    REQUIRE(made);
    const auto* const at = made->take(8).data();
    arena moved = std::move(*made);
    CHECK(moved.bytes().data() == at);
    CHECK(made->bytes().empty());
    arena kept;
    kept = std::move(moved);
    CHECK(kept.used() == 8);
    CHECK(book.used() == 5000);
  }
  CHECK(book.used() == 0);
}

TEST_CASE("an arena beyond the ledger is refused and takes nothing") {
  ledger book(1000);
  const auto refused = arena::reserve(book, owner::weights, 1001, "weights");
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::no_memory);
  CHECK(book.used() == 0);
}

TEST_CASE("an arena beyond the machine is refused and leaves the ledger as it was") {
  ledger book(~std::uint64_t{0});
  for (const auto bytes : {std::size_t{1} << 62, ~std::size_t{0}}) {
    const auto refused = arena::reserve(book, owner::weights, bytes, "weights");
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == errc::no_memory);
    CHECK(book.used() == 0);
  }
}
