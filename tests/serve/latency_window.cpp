#include "runtime/serve/latency_window.hpp"

#include <catch2/catch.hpp>

using tandem::serve::latency_window;
using tandem::serve::time_ns;

namespace {
constexpr time_ns ms = 1'000'000;
}

TEST_CASE("a window nothing was put into shows nothing") {
  latency_window window;
  CHECK(window.over(5 * ms) == latency_window::view{});
}

TEST_CASE("the 95th percentile is a latency that was measured, of the 95th of a hundred") {
  latency_window window;
  for (int i = 100; i >= 1; --i) {
    window.first_token(i, i * ms);
    window.gap(i, 2 * i * ms);
  }
  CHECK(window.over(100) == latency_window::view{100, 95.0, 190.0});
}

TEST_CASE("what is older than a second counts no more") {
  latency_window window;
  window.first_token(0, 500 * ms);
  window.gap(0, 80 * ms);
  window.first_token(600 * ms, 20 * ms);
  CHECK(window.over(1000 * ms) == latency_window::view{2, 500.0, 80.0});
  CHECK(window.over(1001 * ms) == latency_window::view{1, 20.0, 0.0});
  CHECK(window.over(2000 * ms) == latency_window::view{});
}

TEST_CASE("a window of too many samples keeps the newest") {
  latency_window window;
  for (std::size_t i = 0; i < 2 * latency_window::samples_max; ++i)
    window.first_token(0, i < latency_window::samples_max ? 900 * ms : ms);
  CHECK(window.over(0) ==
        latency_window::view{static_cast<int>(latency_window::samples_max), 1.0, 0.0});
}
