#include "runtime/serve/prefill_share.hpp"

#include <catch2/catch.hpp>

#include <numeric>
#include <random>

using namespace tandem::serve;

namespace {
std::vector<int> share(std::vector<reading> sequences, int budget) {
  return share_rows(sequences, budget);
}
}  // namespace

TEST_CASE("one prompt alone gets every row") {
  CHECK(share({{0, 4000}}, 128) == std::vector<int>{128});
  CHECK(share({{0, 50}}, 128) == std::vector<int>{50});
  CHECK(share({}, 128).empty());
}

TEST_CASE("a short prompt behind a long one is read at once") {
  CHECK(share({{0, 4000}, {0, 20}}, 128) == std::vector<int>{108, 20});
  CHECK(share({{0, 4000}, {0, 100}, {0, 30}}, 128) == std::vector<int>{64, 34, 30});
}

TEST_CASE("short prompts without end leave half to the one that waits longest") {
  std::vector<reading> sequences{{0, 4000}};
  for (int i = 0; i < 50; ++i) sequences.push_back({0, 60});
  CHECK(share(sequences, 128)[0] == 64);
}

TEST_CASE("equal prompts are read one after another") {
  CHECK(share({{0, 500}, {0, 500}, {0, 500}}, 128) == std::vector<int>{128, 0, 0});
}

TEST_CASE("a more urgent priority is served first, whatever its length") {
  CHECK(share({{0, 4000}, {1, 5}}, 128) == std::vector<int>{128, 0});
  CHECK(share({{0, 100}, {1, 500}, {1, 8}}, 128) == std::vector<int>{100, 20, 8});
}

TEST_CASE("no row is given twice, none is left over while anything remains") {
  std::mt19937 random(3);
  for (int i = 0; i < 2000; ++i) {
    std::vector<reading> sequences;
    int priority = 0;
    for (auto n = random() % 10; n > 0; --n) {
      priority += random() % 4 == 0 ? 1 : 0;
      sequences.push_back({priority, static_cast<int>(random() % 300)});
    }
    const int budget = static_cast<int>(random() % 600);
    const auto rows = share_rows(sequences, budget);
    int wanted = 0;
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      REQUIRE(rows[s] >= 0);
      REQUIRE(rows[s] <= sequences[s].remaining);
      wanted += sequences[s].remaining;
    }
    REQUIRE(std::accumulate(rows.begin(), rows.end(), 0) == std::min(budget, wanted));
  }
}
