#include "runtime/store/leadership.hpp"

#include <catch2/catch.hpp>

using namespace tandem::store;
using namespace std::chrono_literals;

namespace {

leader_look seen(bool locked, std::int64_t epoch) {
  return {true, locked, epoch, "10.0.0.7:8000", "2026-01-02 03:04:05 UTC"};
}

}  // namespace

TEST_CASE("a head that never led takes the lead exactly when it holds the lock", "[pure]") {
  CHECK(next_step(0, seen(true, 0)) == lead_step::take);
  CHECK(next_step(0, seen(true, 7)) == lead_step::take);
  CHECK(next_step(0, seen(false, 7)) == lead_step::stand_by);
}

TEST_CASE("who leads goes on while its epoch is the newest, and gives up for good otherwise",
          "[pure]") {
  CHECK(next_step(7, seen(true, 7)) == lead_step::lead);
  CHECK(next_step(7, seen(false, 8)) == lead_step::give_up);
  CHECK(next_step(7, seen(true, 8)) == lead_step::give_up);
  CHECK(next_step(7, seen(true, 6)) == lead_step::give_up);  // an older copy was brought back
}

TEST_CASE("a lock that is held while the epoch is ours may be an old session of our own",
          "[pure]") {
  CHECK(next_step(7, seen(false, 7)) == lead_step::wait);
}

TEST_CASE("a database that does not answer decides nothing", "[pure]") {
  CHECK(next_step(0, {}) == lead_step::wait);
  CHECK(next_step(7, {}) == lead_step::wait);
}

TEST_CASE("pauses between tries grow and stay below a second", "[pure]") {
  CHECK(pause_after(1) == 50ms);
  for (int failures = 1; failures < 1000; ++failures) {
    CHECK(pause_after(failures) <= pause_after(failures + 1));
    CHECK(pause_after(failures) <= 1s);
  }
}

TEST_CASE("people are told who leads, with the epoch", "[pure]") {
  CHECK(told(seen(false, 7)) == "10.0.0.7:8000 leads (epoch 7)");
  CHECK(told_to_former(6, seen(false, 7)) ==
        "another head leads since 2026-01-02 03:04:05 UTC: 10.0.0.7:8000 (epoch 7, ours was 6); "
        "this one writes nothing more: start it again and it stands by");
}
