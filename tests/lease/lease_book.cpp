#include "runtime/lease/lease_book.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using namespace tandem::lease;

TEST_CASE("a device appears idle and is lent at a higher epoch") {
  lease_book book;
  const auto fresh = book.add("cpu:0");
  CHECK(fresh.held_as == role::idle);
  CHECK(book.idle_devices() == std::vector<std::string>{"cpu:0"});
  auto lent = book.lend("cpu:0", role::serve, "serve tiny");
  REQUIRE(lent);
  CHECK(lent->at > fresh.at);
  CHECK(lent->holder == "serve tiny");
  CHECK(book.idle_devices().empty());
  CHECK(*book.find("cpu:0") == *lent);
}

TEST_CASE("no two leases ever carry the same epoch, also after a device died and came back") {
  lease_book book;
  std::vector<epoch> seen;
  for (int round = 0; round < 5; ++round)
    for (const auto* device : {"cpu:0", "cpu:1"}) {
      seen.push_back(book.add(device).at);
      seen.push_back(book.lend(device, role::serve, "a")->at);
      seen.push_back(book.lend(device, role::train, "b")->at);
      book.remove(device);
    }
  for (std::size_t i = 1; i < seen.size(); ++i) CHECK(seen[i] > seen[i - 1]);
}

TEST_CASE("a device that is not there cannot be lent") {
  lease_book book;
  auto refused = book.lend("cpu:7", role::serve, "a");
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::not_found);
  CHECK(refused.error().detail.find("cpu:7") != std::string::npos);
}

TEST_CASE("a device refuses an order older than the newest it has seen") {
  epoch_guard guard;
  CHECK(guard.admit(3));
  CHECK(guard.admit(3));
  CHECK(guard.admit(5));
  auto stale = guard.admit(4);
  REQUIRE_FALSE(stale);
  CHECK(stale.error().detail == "an order of epoch 4 came after epoch 5");
  CHECK(guard.newest() == 5);
}
