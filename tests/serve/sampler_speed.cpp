// What a draw costs at the size of real vocabularies. Hidden: run with "[.bench]".
#include "runtime/serve/sampler.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <random>

using namespace tandem::serve;

namespace {

double median_us(const sampling_parameters& p, const std::vector<float>& logits) {
  std::vector<std::uint32_t> scratch;
  sampler s(p, 0, {}, {});
  std::vector<double> times;
  for (int i = 0; i < 101; ++i) {
    auto row = logits;
    const auto begin = std::chrono::steady_clock::now();
    const auto drawn = s.sample(row, i, {}, scratch);
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
    REQUIRE(drawn.id >= 0);
    times.push_back(took.count());
  }
  std::nth_element(times.begin(), times.begin() + 50, times.end());
  return times[50];
}

}  // namespace

TEST_CASE("a draw from a real vocabulary takes less than a thousandth of a second", "[.bench]") {
  for (const std::size_t size : {49'152U, 262'144U}) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.0F, 3.0F);
    std::vector<float> logits(size);
    for (float& x : logits) x = normal(random);
    sampling_parameters greedy;
    greedy.temperature = 0.0F;
    const sampling_parameters warm;
    sampling_parameters top_k;
    top_k.top_k = 50;
    sampling_parameters top_p;
    top_p.top_p = 0.95F;
    sampling_parameters scored = greedy;
    scored.logprobs = 20;
    std::cout << "V " << size << ": greedy " << median_us(greedy, logits) << " us, temperature "
              << median_us(warm, logits) << " us, top_k 50 " << median_us(top_k, logits)
              << " us, top_p 0.95 " << median_us(top_p, logits) << " us, greedy + 20 logprobs "
              << median_us(scored, logits) << " us\n";
    CHECK(median_us(greedy, logits) < 1000);
  }
}
