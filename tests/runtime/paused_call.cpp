#include "runtime/paused_call.hpp"

#include <catch2/catch.hpp>

#include <memory>
#include <stdexcept>
#include <vector>

using tandem::pause_point;
using tandem::paused_call;
using namespace std::chrono_literals;

TEST_CASE("a call runs from pause to pause, only when it is told to") {
  std::vector<int> done;
  paused_call call(
      [&](const pause_point& pause) {
        for (int i = 0; i < 3; ++i) {
          done.push_back(i);
          pause();
        }
      },
      0ns);
  CHECK(done.empty());
  CHECK(call.advance());
  CHECK(done == std::vector{0});
  CHECK(call.advance());
  CHECK(call.advance());
  CHECK(done == std::vector{0, 1, 2});
  CHECK_FALSE(call.advance());
  CHECK_FALSE(call.advance());
}

TEST_CASE("a pause gives nothing back before the piece's time is over") {
  int done = 0;
  paused_call call(
      [&](const pause_point& pause) {
        for (; done < 1000; ++done) pause();
      },
      1h);
  CHECK_FALSE(call.advance());
  CHECK(done == 1000);
}

TEST_CASE("what it throws comes out of advance, and it is over") {
  paused_call call(
      [](const pause_point& pause) {
        pause();
        throw std::runtime_error("no room");
      },
      0ns);
  CHECK(call.advance());
  CHECK_THROWS_WITH(call.advance(), "no room");
  CHECK_FALSE(call.advance());
}

TEST_CASE("one that is given up destroys what it has") {
  const auto kept = std::make_shared<int>(1);
  {
    paused_call call(
        [copy = kept](const pause_point& pause) {
          const auto inner = copy;
          for (;;) pause();
        },
        0ns);
    CHECK(kept.use_count() == 2);
    CHECK(call.advance());
    CHECK(kept.use_count() == 3);
  }
  CHECK(kept.use_count() == 1);
}

TEST_CASE("one that never began is given up as well") {
  bool began = false;
  {
    const paused_call call([&](const pause_point&) { began = true; });
  }
  CHECK_FALSE(began);
}
