#include "runtime/train/work_book.hpp"

#include <catch2/catch.hpp>

#include <map>
#include <random>

using namespace tandem::train;
using dealt = std::vector<work_book::assignment>;

namespace {

constexpr auto accumulate = order_kind::accumulate;
constexpr std::int64_t later = 10'000;  // whatever stands has stood for long

std::vector<int> all_of(int ranks) {
  std::vector<int> homes;
  for (int home = 0; home < ranks; ++home) homes.push_back(home);
  return homes;
}

}  // namespace

TEST_CASE("each working device is dealt its own home's item") {
  work_book book(2);
  book.grant(0);
  book.grant(1);
  book.begin(accumulate, {0, 1});
  CHECK(book.next(later).deal == dealt{{0, accumulate, 0}, {1, accumulate, 1}});
  CHECK(book.next(later).deal.empty());
  CHECK(book.finished(0));
  CHECK_FALSE(book.done());
  CHECK(book.finished(1));
  CHECK(book.done());
}

TEST_CASE("a device alone does everybody's items, one after the other") {
  work_book book(4);
  book.grant(2);
  book.begin(accumulate, all_of(4));
  for (const int home : {2, 0, 1, 3}) {
    CHECK(book.next(later).deal == dealt{{2, accumulate, home}});
    book.finished(2);
  }
  CHECK(book.done());
}

TEST_CASE("with nobody at work nothing is dealt, and it goes on when somebody comes") {
  work_book book(2);
  book.begin(accumulate, {0, 1});
  CHECK(book.next(later).deal.empty());
  CHECK_FALSE(book.anyone_works());
  book.grant(1);
  CHECK(book.next(later).deal == dealt{{1, accumulate, 1}});
}

TEST_CASE("a device that stops keeps its item, and goes on with it when it is back") {
  work_book book(2);
  book.grant(0);
  book.grant(1);
  book.begin(accumulate, {0, 1});
  book.next(later);
  book.revoke(1, 0);
  CHECK(book.next(later).drop.empty());  // the other is busy
  book.grant(1);
  book.finished(0);
  CHECK(book.next(later).drop.empty());  // it is at work again
  book.finished(1);
  CHECK(book.done());
}

TEST_CASE("an item is taken over only once it is dropped where it stood") {
  work_book book(2);
  book.grant(0);
  book.grant(1);
  book.begin(accumulate, {0, 1});
  book.next(later);
  book.revoke(1, 0);
  book.finished(0);
  auto now = book.next(later);
  CHECK(now.deal.empty());
  CHECK(now.drop == std::vector{1});
  CHECK(book.next(later).drop.empty());
  book.grant(1);  // too late: it is being dropped
  CHECK(book.next(later).deal.empty());
  book.dropped(1);
  now = book.next(later);
  CHECK(now.deal == dealt{{1, accumulate, 1}});
}

TEST_CASE("what was begun anew twice is left standing for a while") {
  work_book book(2);
  book.grant(0);
  book.begin(accumulate, {0});
  std::int64_t now_ms = 1000;
  int at_work = 0;
  for (const std::int64_t patience : {0, 0, 250, 250, 250}) {
    CAPTURE(patience);
    REQUIRE(book.next(now_ms).deal.size() == 1);
    book.revoke(at_work, now_ms);
    CHECK(book.next(now_ms).look_again_ms == 0);  // nobody could take it
    book.grant(1 - at_work);
    if (patience > 0) {
      const auto early = book.next(now_ms + patience - 1);
      CHECK(early.drop.empty());
      CHECK(early.look_again_ms == now_ms + patience);
    }
    now_ms += patience;
    REQUIRE(book.next(now_ms).drop == std::vector{at_work});
    book.dropped(at_work);
    at_work = 1 - at_work;
  }
}

TEST_CASE("what was finished before the drop arrived is done, not done again") {
  work_book book(2);
  book.grant(0);
  book.grant(1);
  book.begin(accumulate, {0, 1});
  book.next(later);
  book.revoke(1, 0);
  book.finished(0);
  CHECK(book.next(later).drop == std::vector{1});
  CHECK(book.finished(1));
  book.dropped(1);
  CHECK(book.done());
}

TEST_CASE("a device that is behind gathers before it reads parameters, and not to add up shards") {
  work_book book(2);
  book.grant(0);
  book.begin(order_kind::update, {0, 1});
  book.next(later);
  book.finished(0);
  book.next(later);
  book.finished(0);
  book.parameters_changed();
  book.grant(1);
  book.begin(accumulate, {0, 1});
  CHECK(book.next(later).deal == dealt{{0, order_kind::gather, 0}, {1, order_kind::gather, 1}});
  CHECK_FALSE(book.finished(0));
  CHECK(book.next(later).deal == dealt{{0, accumulate, 0}});
  book.revoke(1, 0);  // half-way through its copy
  CHECK(book.next(later).drop == std::vector{1});
  book.finished(0);
  CHECK(book.next(later).deal == dealt{{0, accumulate, 1}});
  book.finished(0);
  CHECK_FALSE(book.done());
  book.dropped(1);
  CHECK(book.done());
  book.begin(order_kind::reduce, {0, 1});
  book.grant(1);
  CHECK(book.next(later).deal == dealt{{0, order_kind::reduce, 0}, {1, order_kind::reduce, 1}});
}

TEST_CASE("an order that was refused leaves its item open") {
  work_book book(1);
  book.grant(0);
  book.begin(accumulate, {0});
  book.next(later);
  book.revoke(0, 0);
  book.refused(0);
  CHECK(book.next(later).deal.empty());
  book.grant(0);
  CHECK(book.next(later).deal == dealt{{0, accumulate, 0}});
}

TEST_CASE("whatever comes and goes, each item is done once, by one at a time, and all are") {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    INFO("seed " << seed);
    std::mt19937 random(seed);
    const int ranks = 1 << random() % 4;
    work_book book(ranks);
    std::map<int, work_book::assignment> running;  // by rank, as devices know it
    std::vector<int> dropping;
    std::map<int, std::int64_t> gathered;
    std::int64_t version = 0;
    for (int phase = 0; phase < 12; ++phase) {
      const auto kind = phase % 3 == 2 ? order_kind::update : accumulate;
      book.begin(kind, all_of(ranks));
      std::map<int, int> times;
      for (int turn = 0; !book.done(); ++turn) {
        REQUIRE(turn < 4000);
        const bool faults = turn < 200;
        for (int rank = 0; rank < ranks; ++rank) {
          if (!faults)
            book.grant(rank);
          else if (random() % 5 == 0)
            random() % 2 ? book.grant(rank) : book.revoke(rank, 100 * turn);
        }
        const auto now = book.next(100 * turn);
        for (const auto& what : now.deal) {
          CHECK_FALSE(running.contains(what.rank));
          for (const auto& [rank, other] : running)
            CHECK_FALSE((other.kind == what.kind && other.home == what.home));
          if (what.kind == accumulate && ranks > 1) CHECK(gathered[what.rank] == version);
          running.emplace(what.rank, what);
        }
        dropping.insert(dropping.end(), now.drop.begin(), now.drop.end());
        // A device that works may finish; one that does not may have done so just before.
        for (int rank = 0; rank < ranks; ++rank) {
          const auto it = running.find(rank);
          if (it == running.end() || !book.works(rank) || random() % 3 != 0) continue;
          if (it->second.kind == order_kind::gather)
            gathered[rank] = version;
          else
            ++times[it->second.home];
          running.erase(it);
          book.finished(rank);
        }
        if (!dropping.empty() && random() % 2 == 0) {
          running.erase(dropping.back());
          book.dropped(dropping.back());
          dropping.pop_back();
        }
      }
      CHECK(running.empty());
      for (int home = 0; home < ranks; ++home) CHECK(times[home] == 1);
      if (kind == order_kind::update) {
        book.parameters_changed();
        ++version;
      }
    }
  }
}
