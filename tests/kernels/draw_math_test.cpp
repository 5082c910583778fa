// The arithmetic of draws: whole numbers and their bounds.
#include "kernels/draw_math.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

using namespace tandem::kernels;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float largest_float = std::numeric_limits<float>::max();

std::vector<float> some_floats(int count) {
  std::mt19937 random(5);
  std::vector<float> values{0.0F,  -0.0F,          1e-45F, -1e-45F,  1.0F,
                            -1.0F, -largest_float, 87.0F,  infinity, -infinity};
  while (std::ssize(values) < count) {
    const float x = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    if (!std::isnan(x)) values.push_back(x);
  }
  return values;
}

}  // namespace

TEST_CASE("units of a weight are it times 2^42, rounded to nearest") {
  CHECK(drawing::units(0.0F) == 0);
  CHECK(drawing::units(1.0F) == drawing::one);
  CHECK(drawing::units(0x1.0p-44F) == 0);
  CHECK(drawing::units(0x1.8p-43F) == 1);
  std::mt19937 random(1);
  for (int i = 0; i < 10'000; ++i) {
    const float w = drawing::exp_within(-static_cast<float>(random() % 87'000) * 1e-3F);
    REQUIRE(drawing::units(w) ==
            static_cast<std::uint64_t>(std::llrint(std::ldexp(double{w}, 42))));
  }
}

TEST_CASE("a share of a total is exact, and below the total") {
  std::mt19937_64 random(2);
  for (int i = 0; i < 10'000; ++i) {
    const std::uint64_t total = random() >> (random() % 60);
    const double u = static_cast<double>(random() >> 11U) * 0x1.0p-53;
    __extension__ using wide = unsigned __int128;
    const auto want =
        static_cast<std::uint64_t>((wide{total} * static_cast<std::uint64_t>(u * 0x1.0p53)) >> 53U);
    REQUIRE(drawing::part_of(total, drawing::share_of_one(u)) == want);
    REQUIRE((total == 0 || want < total));
  }
}

TEST_CASE("keys order as floats do, both zeros are one and NaN is below all") {
  const auto values = some_floats(3000);
  for (const float a : values) {
    REQUIRE(drawing::value_of(drawing::key_of(a)) == a);
    REQUIRE(drawing::key_of(std::numeric_limits<float>::quiet_NaN()) < drawing::key_of(a));
    const float b = values[static_cast<std::size_t>(&a - values.data()) * 7 % values.size()];
    REQUIRE((drawing::key_of(a) < drawing::key_of(b)) == (a < b));
    REQUIRE((drawing::key_of(a) == drawing::key_of(b)) == (a == b));
  }
}

TEST_CASE("the keys of a bucket are exactly those from its first to the next bucket's first") {
  for (const float inverse : {1.0F, 5.0F, 0.55F, 1e-2F}) {
    for (const float top : {12.5F, 0.3F, 0.0F, -4.0F, 1e-30F, 3e38F}) {
      const auto last = drawing::key_of(top);
      for (const int bucket : {0, 1, 19, 64, 700, 2046}) {
        const auto first = drawing::first_key_within(bucket, top, inverse, last);
        CAPTURE(inverse, top, bucket);
        CHECK(drawing::bucket_of(drawing::value_of(first), top, inverse) <= bucket);
        if (first > drawing::key_of(-largest_float))
          CHECK(drawing::bucket_of(drawing::value_of(first - 1), top, inverse) > bucket);
      }
    }
  }
  CHECK(drawing::bucket_of(-infinity, 1.0F, 1.0F) == drawing::buckets - 1);
}

TEST_CASE("what weighs less than the floor does not make up what the nucleus leaves out") {
  std::mt19937 random(3);
  for (int i = 0; i < 300; ++i) {
    const auto size = std::size_t{1} << (random() % 16);
    const float spread = static_cast<float>(random() % 3000) * 1e-2F;
    std::vector<std::uint64_t> weights{drawing::one};
    while (weights.size() < size)
      weights.push_back(drawing::units(
          drawing::exp_within(-spread * static_cast<float>(random() % 1000) * 1e-3F)));
    const auto total = std::accumulate(weights.begin(), weights.end(), std::uint64_t{0});
    for (const double p : {0.01, 0.5, 0.95, 0.9999, 0.9999999}) {
      const auto share = drawing::share_of_one(p);
      const auto spare = total - drawing::nucleus_wanted(total, share);
      // A device knows no total yet, only that it is at least one.
      for (const auto known : {total, drawing::one}) {
        const auto floor = drawing::nucleus_floor(known, share, std::ssize(weights));
        std::uint64_t below = 0;
        for (const auto w : weights) below += w < floor ? w : 0;
        REQUIRE(below <= spare);
      }
    }
  }
}
