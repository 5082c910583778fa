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

TEST_CASE("what decoding takes is told by steps that read prompts where no others are seen") {
  // 6 ms, 1.3 more for each row that decodes, half a millisecond for each of a prompt.
  const auto took = [](int decode_rows, int prompt_rows) {
    return 6 * ms + decode_rows * 13 * ms / 10 + prompt_rows * ms / 2;
  };
  prefill_pace pace(128);
  pace.step_done(0, 64, took(0, 64));
  pace.step_done(0, 20, took(0, 20));
  for (int decode_rows = 1; decode_rows <= 8; ++decode_rows)
    for (int i = 0; i < 6; ++i) {
      const int rows = pace.rows_allowed(decode_rows);
      pace.step_done(decode_rows, rows, took(decode_rows, rows));
    }
  CHECK(pace.rows_allowed(8) >= 25);  // 0.8 times the 16.4 ms of eight that decode
  CHECK(pace.rows_allowed(8) <= 27);
}

TEST_CASE("rows that decode are not taken for dear prompt rows") {
  prefill_pace pace(128);
  pace.step_done(1, 0, 8 * ms);
  pace.step_done(3, 0, 11 * ms);
  for (int i = 0; i < 50; ++i) {  // eight decode in each, and never alone
    const int rows = pace.rows_allowed(8);
    pace.step_done(8, rows, 18 * ms + ms / 2 + rows * ms / 2);
  }
  CHECK(pace.rows_allowed(8) >= 28);  // 0.8 times 18.5 ms
  CHECK(pace.rows_allowed(8) <= 30);
}

TEST_CASE("where many wait for prompt rows and few decode, their waits weigh more, up to a bound") {
  prefill_pace pace(128);
  pace.step_done(1, 0, 4 * ms);
  pace.step_done(1, 16, 4 * ms + 16 * ms / 2);
  CHECK(pace.rows_allowed(1) == 8);       // 4 ms more
  CHECK(pace.rows_allowed(1, 5) == 40);   // 20 ms
  CHECK(pace.rows_allowed(1, 15) == 80);  // 40 ms, not 60
  CHECK(pace.rows_allowed(8, 4) == 8);
  // A step that takes longer than the bound by itself is still lengthened in its proportion.
  pace.step_done(16, 0, 100 * ms);
  CHECK(pace.rows_allowed(16, 64) == 128);
}

TEST_CASE("a thread that came late in a step of few rows says little of what a row costs") {
  prefill_pace pace(128);
  pace.step_done(2, 0, 5 * ms);
  run(pace, 1, ms / 2);
  pace.step_done(2, 4, 5 * ms + 4 * ms / 2);
  const int before = pace.rows_allowed(2);
  pace.step_done(2, 2, 5 * ms + 12 * ms);
  CHECK(pace.rows_allowed(2) < before);
  CHECK(pace.rows_allowed(2) > 1);
}
