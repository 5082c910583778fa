#include "runtime/transport/spin_window.hpp"

#include <catch2/catch.hpp>

using namespace tandem::transport;
using namespace std::chrono_literals;

namespace {

const spin_window::clock::time_point begin{1h};

}  // namespace

TEST_CASE(
    "the thread looks as long as work lately came soon, and sleeps at once when it came late") {
  spin_window window(100us);
  CHECK_FALSE(window.open(begin, 0us));
  window.worked_after(90us);  // by being woken
  CHECK(window.open(begin, 99us));
  CHECK_FALSE(window.open(begin, 100us));
  window.worked_after(101us);
  CHECK_FALSE(window.open(begin, 0us));
  window.worked_after(100us);
  CHECK(window.open(begin, 0us));
}

TEST_CASE("what is known to come is looked for longer") {
  spin_window window(100us);
  CHECK(window.open(begin, 400us, 500us));
  CHECK_FALSE(window.open(begin, 500us, 500us));
}

TEST_CASE(
    "where others want the core it sleeps, longer each time, and comes back when they are gone") {
  spin_window window(100us);
  window.worked_after(10us);
  window.yielded(begin, 300us);
  CHECK(window.open(begin, 0us));
  window.yielded(begin, 3ms);
  CHECK_FALSE(window.open(begin + 4ms, 0us));
  CHECK(window.open(begin + 5ms, 0us));
  auto now = begin;
  for (int i = 0; i < 20; ++i) window.yielded(now, 3ms);
  CHECK_FALSE(window.open(now + 639ms, 0us));
  CHECK(window.open(now + 640ms, 0us));
  for (int i = 0; i < 100; ++i) window.worked_after(10us);
  now += 1s;
  window.yielded(now, 3ms);
  CHECK(window.open(now + 5ms, 0us));
}

TEST_CASE("a window of nothing never opens") {
  spin_window window(0us);
  window.worked_after(0us);
  CHECK_FALSE(window.open(begin, 0us));
  CHECK_FALSE(window.open(begin, 0us, 500us));
}
