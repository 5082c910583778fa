#include "runtime/restart_pace.hpp"

#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using tandem::restart_pace;

TEST_CASE("what dies as it starts is given up after so many times, with growing pauses") {
  restart_pace pace(5, 100ms);
  for (const auto pause : {100ms, 200ms, 400ms, 800ms, 1600ms}) CHECK(pace.died(300ms) == pause);
  CHECK(pace.restarts() == 5);
  CHECK_FALSE(pace.died(300ms));
}

TEST_CASE("what is killed now and then is always started again, and soon") {
  restart_pace pace(5, 100ms);
  for (int times = 0; times < 200; ++times) {
    const auto pause = pace.died(times % 2 == 0 ? 2s : 7s);
    REQUIRE(pause);
    CHECK(*pause <= 200ms);
  }
}

TEST_CASE("each three seconds of life forgive one death") {
  restart_pace pace(5, 100ms);
  for (int times = 0; times < 5; ++times) pace.died(0s);
  CHECK(pace.died(1s) == std::nullopt);
  CHECK(pace.died(5s) == 800ms);
  CHECK(pace.died(24h) == 100ms);
}

TEST_CASE("however many restarts are allowed, the pause stops growing") {
  restart_pace pace(1000, 10ms);
  std::optional<std::chrono::milliseconds> last;
  for (int times = 0; times < 100; ++times) last = pace.died(0s);
  CHECK(last == 640ms);
}
