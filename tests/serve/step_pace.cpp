#include "runtime/serve/step_pace.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using serve::step_pace;
using namespace std::chrono_literals;

namespace {

constexpr auto most = std::chrono::milliseconds(10min);

step_pace after(int steps, int rows, std::chrono::nanoseconds each) {
  step_pace pace;
  for (int i = 0; i < steps; ++i) pace.add(rows, each);
  return pace;
}

}  // namespace

TEST_CASE("a device that has run nothing yet may take as long as any") {
  CHECK(step_pace().patience(1, 10s, most) == most);
  auto anew = after(10, 1, 1ms);
  anew.forget();
  CHECK(anew.patience(1, 10s, most) == most);
}

TEST_CASE("a step may take twenty times the slowest of late, and ten seconds in any case") {
  CHECK(after(10, 1, 5ms).patience(1, 10s, most) == 10s);
  CHECK(after(10, 1, 2s).patience(1, 10s, most) == 40s);
  auto mixed = after(10, 1, 5ms);
  mixed.add(1, 3s);
  CHECK(mixed.patience(1, 10s, most) == 60s);
}

TEST_CASE("a prompt may take as much longer as it has more rows than what ran before") {
  const auto decodes = after(10, 1, 1s);
  CHECK(decodes.patience(1, 10s, most) == 20s);
  CHECK(decodes.patience(16, 10s, most) == 320s);
  CHECK(decodes.patience(128, 10s, most) == most);
  // Many rows together cost less each: that is no reason to wait less for a few.
  CHECK(after(10, 128, 2s).patience(1, 10s, most) == 40s);
}

TEST_CASE("the more parameters a model has, the longer a job may open between two steps") {
  CHECK(serve::step_patience_min(0) == 10s);
  CHECK(serve::step_patience_min(135'000'000) == 23'500ms);
  CHECK(after(10, 1, 5ms).patience(1, serve::step_patience_min(8'000'000'000), most) == most);
}

TEST_CASE("what took long is forgotten after a while, and no number overflows") {
  auto pace = after(1, 1, 20s);
  for (int i = 0; i < 63; ++i) pace.add(1, 1ms);
  CHECK(pace.patience(1, 10s, most) == 400s);
  pace.add(1, 1ms);
  CHECK(pace.patience(1, 10s, most) == 10s);
  CHECK(after(1, 1, std::chrono::hours(24 * 365)).patience(1 << 20, 10s, most) == most);
  CHECK(after(3, 0, -1ns).patience(0, 10s, most) == 10s);
}
