#include "runtime/memory/ledger.hpp"

using namespace tandem;
using namespace tandem::memory;
using Catch::Matchers::Contains;

TEST_CASE("the ledger lends what is free, and takes it back") {
  ledger book(1000);
  REQUIRE(book.reserve(owner::weights, 600, "weights"));
  REQUIRE(book.reserve(owner::kv_blocks, 400, "KV blocks"));
  CHECK(book.used() == 1000);
  CHECK(book.free() == 0);
  CHECK(book.used_by(owner::weights) == 600);
  book.release(owner::weights, 100);
  CHECK(book.free() == 100);
  CHECK(book.used_by(owner::weights) == 500);
}

TEST_CASE("what does not fit is refused with the numbers, the holders and the setting") {
  ledger book(1000);
  REQUIRE(book.reserve(owner::weights, 600, "weights"));
  const auto refused = book.reserve(owner::kv_blocks, 401, "a cache of 4 KV blocks");
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::no_memory);
  CHECK_THAT(refused.error().detail, Contains("a cache of 4 KV blocks wants 401 B") &&
                                         Contains("400 B of 1000 B are free") &&
                                         Contains("weights 600 B") &&
                                         Contains("devices.memory_fraction"));
  CHECK(book.used() == 600);
  CHECK_FALSE(book.reserve(owner::weights, ~std::uint64_t{0}, "everything"));
  CHECK(book.used() == 600);
}

TEST_CASE("every owner has a name") {
  for (std::size_t i = 0; i < owner_count; ++i) CHECK_FALSE(name_of(static_cast<owner>(i)).empty());
}
