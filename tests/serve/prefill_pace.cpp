#include "runtime/serve/prefill_pace.hpp"

#include <catch2/catch.hpp>

using tandem::serve::prefill_pace;

namespace {

constexpr std::int64_t ms = 1'000'000;

// A device on which a decoding step takes 10 ms and each prompt row `row_ns` more.
void run(prefill_pace& pace, int steps, std::int64_t row_ns) {
  for (int i = 0; i < steps; ++i) {
    const int rows = pace.rows_allowed(16);
    pace.step_done(16, rows, 10 * ms + rows * row_ns);
  }
}

}  // namespace

TEST_CASE("prompt rows settle where a mixed step takes 1.8 times one that only decodes") {
  prefill_pace pace(128);
  pace.step_done(16, 0, 10 * ms);
  run(pace, 20, ms / 2);
  CHECK(pace.rows_allowed(16) == 16);
}

TEST_CASE("rows that grow dear with the context become fewer at once") {
  prefill_pace pace(128);
  pace.step_done(16, 0, 10 * ms);
  run(pace, 20, ms / 2);
  pace.step_done(16, 20, 10 * ms + 20 * 2 * ms);
  CHECK(pace.rows_allowed(16) == 4);
}

TEST_CASE("cheap rows after dear ones are trusted by and by") {
  prefill_pace pace(128);
  pace.step_done(16, 0, 10 * ms);
  run(pace, 1, 2 * ms);
  const int dear = pace.rows_allowed(16);
  run(pace, 5, ms / 4);
  CHECK(pace.rows_allowed(16) > dear);
  CHECK(pace.rows_allowed(16) < 31);
  run(pace, 60, ms / 4);
  CHECK(pace.rows_allowed(16) == 31);  // from below: the average never quite arrives
}

TEST_CASE("a single fast stream still lets prompts in, and one row at least always") {
  prefill_pace pace(128);
  pace.step_done(1, 0, 1 * ms);
  pace.step_done(1, 4, 1 * ms + 4 * ms / 2);
  CHECK(pace.rows_allowed(1) == 8);
  pace.step_done(1, 8, 1 * ms + 8 * 100 * ms);
  CHECK(pace.rows_allowed(1) == 1);
}

TEST_CASE("nothing measured yet: as many as the setting says, and never more than that") {
  CHECK(prefill_pace(128).rows_allowed(4) == 128);
  prefill_pace pace(32);
  pace.step_done(4, 0, 100 * ms);
  pace.step_done(4, 16, 100 * ms + 1);
  CHECK(pace.rows_allowed(4) == 32);
}

TEST_CASE("a number of decoding sequences never seen alone is judged by the nearest that was") {
  prefill_pace pace(128);
  pace.step_done(4, 0, 10 * ms);
  pace.step_done(16, 10, 10 * ms + 10 * ms);
  CHECK(pace.rows_allowed(16) == 8);
  CHECK(pace.rows_allowed(1) == 8);
}
