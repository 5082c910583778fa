// Tokens that the GPU draws are those of the host's sampler, whatever the row and the batch.
#include "kernels/draw_math.hpp"
#include "runtime/serve/sampler.hpp"
#include "tests/cuda/pair.hpp"

#include <chrono>
#include <cmath>
#include <iostream>
#include <limits>

using namespace tandem;
using namespace tandem::kernels;
using namespace tandem::kernels::test;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

enum class shape { spread, peaked, flat, tied, zeros, tiny, holes };
constexpr shape shapes[] = {shape::spread, shape::peaked, shape::flat, shape::tied,
                            shape::zeros,  shape::tiny,   shape::holes};

floats row_of(shape kind, std::int64_t V, randoms& random) {
  floats row(static_cast<std::size_t>(V));
  for (float& x : row) {
    // About normal, as logits are.
    x = 4.0F * (random.next() + random.next() + random.next()) - 3.0F;
    if (kind == shape::peaked && random.below(1000) == 0) x += 25.0F;
    if (kind == shape::flat) x = 1.5F;
    if (kind == shape::tied) x = std::round(x * 2.0F) / 2.0F;
    if (kind == shape::zeros) x = random.below(2) == 0 ? 0.0F : -0.0F;
    if (kind == shape::tiny) x *= 1e-30F;
    if (kind == shape::holes && random.below(3) > 0)
      x = random.below(2) == 0 ? nan_value : -infinity;
  }
  return row;
}

serve::sampling_parameters rule_of(int i, std::uint64_t seed) {
  constexpr float temperatures[] = {0.0F, 1.0F, 0.7F, 0.2F, 1.8F};
  constexpr float top_ps[] = {1.0F, 0.95F, 0.5F, 0.999F, 1e-4F, 0.9F, 0.9999999F};
  constexpr float min_ps[] = {0.0F, 0.0F, 0.05F, 0.9F};
  serve::sampling_parameters p;
  p.temperature = temperatures[i % 5];
  p.top_p = top_ps[i % 7];
  p.min_p = min_ps[i % 4];
  p.seed = seed;
  return p;
}

struct asked {
  floats row;
  serve::sampling_parameters how;
  int position = 0;

  draw_rule rule() const { return *serve::sampler(how, 0, {}, {}).rule(position); }
  std::int32_t by_the_host() const {
    auto logits = row;
    std::vector<std::uint32_t> scratch;
    return serve::sampler(how, 0, {}, {}).sample(logits, position, {}, scratch).id;
  }
};

// All of these in one call; rows of V numbers, `gap` between them.
std::vector<std::int32_t> drawn(gpu_device& gpu, const std::vector<asked>& rows,
                                std::int64_t gap = 0) {
  const std::int64_t V = std::ssize(rows.front().row);
  floats all;
  std::vector<draw_rule> rules;
  for (const auto& one : rows) {
    all.insert(all.end(), one.row.begin(), one.row.end());
    all.resize(all.size() + static_cast<std::size_t>(gap), infinity);
    rules.push_back(one.rule());
  }
  std::vector<std::int32_t> ids(rows.size(), -7);
  REQUIRE(gpu->draw({gpu.put(all), std::ssize(rows), V, V + gap}, rules, ids));
  return ids;
}

}  // namespace

TEST_CASE("the GPU draws the host's token, to the bit, from any row by any rule", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  randoms random(1);
  int i = 0;
  for (const std::int64_t V : {1, 31, 1000, 2047, 2049, 32'001, 128'256, 262'145}) {
    for (const shape kind : shapes) {
      CAPTURE(V, kind);
      std::vector<asked> rows;
      const int count = V > 100'000 ? 16 : 64;
      for (int b = 0; b < count; ++b, ++i)
        rows.push_back({row_of(kind, V, random), rule_of(i, static_cast<std::uint64_t>(i)), i});
      for (auto& one : rows)  // something to draw from
        if (std::isnan(one.row[0]) || std::isinf(one.row[0])) one.row[0] = 0.5F;
      std::vector<std::int32_t> want;
      for (const auto& one : rows) want.push_back(one.by_the_host());
      CHECK(drawn(*gpu, rows) == want);
      CHECK(drawn(*gpu, rows, 3) == want);
    }
  }
}

TEST_CASE("a row's token does not depend on the rows beside it", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  randoms random(2);
  std::vector<asked> rows;
  for (int b = 0; b < 150; ++b)  // more than are drawn at once
    rows.push_back({row_of(shapes[b % 7], 20'011, random), rule_of(b, 5), b});
  for (auto& one : rows) one.row[17] = 1.0F;
  const auto together = drawn(*gpu, rows);
  for (std::size_t b = 0; b < rows.size(); b += 7) {
    CHECK(drawn(*gpu, {rows[b]}) == std::vector{together[b]});
    const auto three = std::vector<asked>{rows[(b + 50) % 150], rows[b], rows[(b + 80) % 150]};
    CHECK(drawn(*gpu, three)[1] == together[b]);
  }
}

TEST_CASE("u falls on every id as often as its weight says", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  std::vector<asked> rows;
  for (int i = 0; i < 4096; ++i) {
    asked one{{0.0F, 1.0F, 2.0F, -1.0F, 0.5F}, {}, i};
    one.how.seed = 11;
    rows.push_back(one);
  }
  std::vector<int> count(5);
  for (const auto id : drawn(*gpu, rows)) ++count[static_cast<std::size_t>(id)];
  double total = 0.0;
  for (const float x : rows[0].row) total += std::exp(double{x});
  double chi_square = 0.0;
  for (std::size_t i = 0; i < 5; ++i) {
    const double expected = 4096.0 * std::exp(double{rows[0].row[i]}) / total;
    chi_square += (count[i] - expected) * (count[i] - expected) / expected;
  }
  CHECK(chi_square < 18.5);  // 4 degrees of freedom, p = 0.001
}

TEST_CASE("rows without a finite largest number are handed back, rows beside them are not",
          "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  for (const int kind : {0, 1, 3}) {  // greedy, top_p, all
    auto how = rule_of(kind, 3);
    if (kind == 3) how.top_p = 1.0F;
    const std::vector<asked> rows{{{nan_value, -infinity, -infinity}, how, 0},
                                  {{-1.0F, 2.0F, nan_value}, how, 0},
                                  {{1.0F, infinity, 2.0F}, how, 0},
                                  {{nan_value, nan_value, nan_value}, how, 0}};
    CHECK(drawn(*gpu, rows) == std::vector<std::int32_t>{-1, rows[1].by_the_host(), -1, -1});
  }
}

TEST_CASE("rows wider than the workspace has pieces for are the host's", "[gpu]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  const std::int64_t V = 600'000;
  std::vector<std::int32_t> ids{-7};
  const std::vector<draw_rule> rules(1);
  CHECK_FALSE((*gpu)->draw({gpu->put(floats(static_cast<std::size_t>(V))), 1, V}, rules, ids));
  CHECK(ids[0] == -7);
}

// What it costs beside a step, at the size of a real vocabulary. Hidden: run with "[.bench]".
TEST_CASE("64 rows of 128,256 logits are drawn in a fraction of the time they take to the host",
          "[.bench]") {
  auto gpu = gpu_device::open();
  if (gpu == nullptr) return;
  randoms random(3);
  constexpr std::int64_t V = 128'256;
  for (const std::int64_t B : {1, 64}) {
    floats all;
    for (std::int64_t b = 0; b < B; ++b) {
      const auto row = row_of(shape::spread, V, random);
      all.insert(all.end(), row.begin(), row.end());
    }
    const rows_out there{gpu->put(all), B, V};
    std::vector<std::int32_t> ids(static_cast<std::size_t>(B));
    const auto median_us = [](const auto& work) {
      std::vector<double> times;
      for (int i = 0; i < 51; ++i) {
        const auto begin = std::chrono::steady_clock::now();
        work();
        times.push_back(
            std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
                .count());
      }
      std::sort(times.begin(), times.end());
      return times[times.size() / 2];
    };
    const auto draws = [&](draw_rule how) {
      const std::vector<draw_rule> rules(static_cast<std::size_t>(B), how);
      return median_us([&] { REQUIRE((*gpu)->draw(there, rules, ids)); });
    };
    std::cout << "B " << B << ", V " << V << ": greedy " << draws({}) << " us, temperature "
              << draws({.temperature = 0.8F, .u = 0.3}) << " us, top_p 0.95 "
              << draws({.temperature = 0.8F, .top_p = 0.95F, .u = 0.3}) << " us, to the host "
              << median_us([&] { (*gpu)->to_host(there); }) << " us\n";
  }
}
