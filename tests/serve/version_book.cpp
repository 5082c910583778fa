#include "runtime/serve/version_book.hpp"

#include <catch2/catch.hpp>

using namespace tandem::serve;

namespace {

version_book::entry version(std::uint64_t number) {
  version_book::entry entry;
  entry.version = number;
  entry.job = "ftjob-1";
  return entry;
}

std::vector<variant_id> ids(const std::vector<version_book::entry>& entries) {
  std::vector<variant_id> list;
  for (const auto& entry : entries) list.push_back(entry.id);
  return list;
}

}  // namespace

TEST_CASE("a name moves to the newest version, and the old one leaves when nobody runs on it") {
  version_book book;
  const auto first = book.add(version(1));
  CHECK(book.named("ft") == std::nullopt);
  CHECK(book.take_idle().empty());
  book.publish(first, {"ft", "ft:step-1"});
  book.request_began(first);
  const auto second = book.add(version(2));
  CHECK(second != first);
  book.publish(second, {"ft", "ft:step-2"});
  CHECK(book.named("ft") == second);
  CHECK(book.named("ft:step-1") == first);
  book.withdraw({"ft:step-1"});
  CHECK(book.take_idle().empty());
  book.request_ended(first);
  CHECK(ids(book.take_idle()) == std::vector{first});
  CHECK(book.find(first) == nullptr);
  CHECK(book.take_idle().empty());
}

TEST_CASE("a version that was published late does not take a name back from a newer one") {
  version_book book;
  const auto slow = book.add(version(1));
  const auto fast = book.add(version(2));
  book.publish(fast, {"ft"});
  book.publish(slow, {"ft", "ft:step-1"});
  CHECK(book.named("ft") == fast);
  CHECK(book.named("ft:step-1") == slow);
}

TEST_CASE("a publication that was given up leaves nothing behind") {
  version_book book;
  const auto id = book.add(version(1));
  book.arrived(id, "cpu:0");
  CHECK(book.take_idle().empty());
  book.give_up(id);
  const auto gone = book.take_idle();
  REQUIRE(gone.size() == 1);
  CHECK(gone.front().devices == std::set<std::string>{"cpu:0"});
  CHECK(book.entries().empty());
}

TEST_CASE("a version is where it arrived, until that device is lost") {
  version_book book;
  const auto id = book.add(version(1));
  book.publish(id, {"ft"});
  book.arrived(id, "cpu:0");
  book.arrived(id, "cpu:1");
  book.device_lost("cpu:0");
  CHECK(book.find(id)->devices == std::set<std::string>{"cpu:1"});
  CHECK_FALSE(book.find(id)->can_return());
}
