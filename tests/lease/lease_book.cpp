#include "runtime/lease/lease_book.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using namespace tandem::lease;

TEST_CASE("a device appears idle and is lent at a higher epoch") {
  lease_book book;
  const auto fresh = book.add("cpu:0");
  CHECK(fresh.held_as == role::idle);
  auto lent = book.lend("cpu:0", role::serve, "serve tiny", "");
  REQUIRE(lent);
  CHECK(lent->at > fresh.at);
  CHECK(lent->holder == "serve tiny");
  CHECK(lent->serve_since == lent->at);
  CHECK(*book.find("cpu:0") == *lent);
}

TEST_CASE("no two leases ever carry the same epoch, also after a device died and came back") {
  lease_book book;
  std::vector<epoch> seen;
  for (int round = 0; round < 5; ++round)
    for (const auto* device : {"cpu:0", "cpu:1"}) {
      seen.push_back(book.add(device).at);
      seen.push_back(book.lend(device, role::serve, "a", "")->at);
      seen.push_back(book.lend(device, role::train, "", "b")->at);
      book.remove(device);
    }
  for (std::size_t i = 1; i < seen.size(); ++i) CHECK(seen[i] > seen[i - 1]);
}

TEST_CASE("a device that is not there cannot be lent") {
  lease_book book;
  auto refused = book.lend("cpu:7", role::serve, "a", "");
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::not_found);
  CHECK(refused.error().detail.find("cpu:7") != std::string::npos);
}

TEST_CASE("a role without its holder is refused") {
  lease_book book;
  book.add("cpu:0");
  CHECK_FALSE(book.lend("cpu:0", role::train, "serve tiny", ""));
  CHECK_FALSE(book.lend("cpu:0", role::shared, "", "ftjob-1"));
  CHECK(book.find("cpu:0")->held_as == role::idle);
}

TEST_CASE("a change of role that leaves a side alone does not end its tenure") {
  lease_book book;
  book.add("cpu:0");
  const auto serving = *book.lend("cpu:0", role::serve, "serve tiny", "");
  const auto shared = *book.lend("cpu:0", role::shared, "serve tiny", "ftjob-1");
  CHECK(shared.at > serving.at);
  CHECK(shared.serve_since == serving.at);
  CHECK(shared.train_since == shared.at);
  CHECK(shared.job() == "ftjob-1");
  const auto training = *book.lend("cpu:0", role::train, "serve tiny", "ftjob-1");
  CHECK(training.train_since == shared.at);
  CHECK(training.serve_since == 0);
  CHECK(training.job() == "ftjob-1");
  const auto again = *book.lend("cpu:0", role::shared, "serve tiny", "ftjob-1");
  CHECK(again.serve_since == again.at);
  const auto other = *book.lend("cpu:0", role::shared, "serve tiny", "ftjob-2");
  CHECK(other.train_since == other.at);
}

TEST_CASE("a restored book goes on above every epoch that was given out") {
  lease_book book;
  book.add("cpu:0");
  const auto held = *book.lend("cpu:0", role::serve, "a", "");
  lease_book again;
  again.restore({held}, 40);
  CHECK(*again.find("cpu:0") == held);
  CHECK(again.lend("cpu:0", role::serve, "a", "")->at == 41);
}

TEST_CASE("a device refuses orders of a tenure that has ended, and of one it is not in") {
  lease_book book;
  book.add("cpu:0");
  lease_guard guard;
  const auto serving = *book.lend("cpu:0", role::serve, "a", "");
  REQUIRE(guard.take(serving));
  CHECK(guard.admit_serving(serving.at));
  CHECK_FALSE(guard.admit_training(serving.at));
  const auto shared = *book.lend("cpu:0", role::shared, "a", "job");
  REQUIRE(guard.take(shared));
  CHECK(guard.admit_serving(serving.at));
  CHECK(guard.admit_training(shared.at));
  const auto training = *book.lend("cpu:0", role::train, "a", "job");
  REQUIRE(guard.take(training));
  const auto stale = guard.admit_serving(serving.at);
  REQUIRE_FALSE(stale);
  CHECK(stale.error().code == errc::conflict);
  CHECK(guard.admit_training(shared.at));
  CHECK_FALSE(guard.take(shared));
  CHECK(guard.admit_residency(serving.at));
  CHECK_FALSE(guard.admit_residency(serving.at - 1));
}
