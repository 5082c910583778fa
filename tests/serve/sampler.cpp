#include "runtime/serve/sampler.hpp"

#include "runtime/serve/logit_passes.hpp"
#include "runtime/serve/philox.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>

using namespace tandem::serve;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

std::vector<float> random_logits(std::size_t count, std::uint32_t seed, float spread = 3.0F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, spread);
  std::vector<float> logits(count);
  for (float& x : logits) x = normal(random);
  return logits;
}

token_id sample_once(const sampling_parameters& p, std::vector<float> logits, int position = 0,
                     std::vector<token_id> prompt = {}, std::vector<token_id> generated = {},
                     std::vector<token_id> banned = {}, int choice = 0) {
  std::vector<std::uint32_t> scratch;
  return sampler(p, choice, prompt, generated).sample(logits, position, banned, scratch).id;
}

sampling_parameters greedy() {
  sampling_parameters p;
  p.temperature = 0.0F;
  return p;
}

// The definition, in float64 and with full sorts. `margin` is how near a decision was to falling
// the other way: within rounding of float32 both answers are right.
struct truth {
  token_id id = 0;
  double margin = 1.0;
};
truth naive(const sampling_parameters& p, const std::vector<float>& logits, int position,
            const std::vector<token_id>& prompt, const std::vector<token_id>& generated) {
  std::vector<double> x(logits.begin(), logits.end());
  for (const auto& [id, bias] : p.logit_bias) x[static_cast<std::size_t>(id)] += double{bias};
  std::set<token_id> repeated(prompt.begin(), prompt.end());
  repeated.insert(generated.begin(), generated.end());
  const auto penalty = static_cast<double>(p.repetition_penalty);
  for (const token_id id : repeated) {
    double& v = x[static_cast<std::size_t>(id)];
    v = v > 0 ? v / penalty : v * penalty;
    const auto times = std::count(generated.begin(), generated.end(), id);
    v -= double{p.frequency_penalty} * static_cast<double>(times);
    if (times > 0) v -= double{p.presence_penalty};
  }
  std::vector<std::size_t> order(x.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return x[a] > x[b]; });
  const double top = x[order[0]];
  truth t;
  if (p.top_k > 0 && static_cast<std::size_t>(p.top_k) < order.size()) {
    const auto k = static_cast<std::size_t>(p.top_k);
    t.margin = std::min(t.margin, x[order[k - 1]] - x[order[k]]);
    order.resize(k);
  }
  const auto weight = [&](std::size_t i) {
    return std::exp((x[i] - top) / static_cast<double>(p.temperature));
  };
  for (const std::size_t i : order) {
    if (p.min_p > 0.0F) t.margin = std::min(t.margin, std::abs(weight(i) - double{p.min_p}));
  }
  std::erase_if(order, [&](std::size_t i) { return weight(i) < double{p.min_p}; });
  double total = 0.0;
  for (const std::size_t i : order) total += weight(i);
  if (p.top_p < 1.0F) {
    double sum = 0.0;
    std::size_t kept = 0;
    while (kept < order.size() && (kept == 0 || sum < double{p.top_p} * total)) {
      sum += weight(order[kept++]);
      t.margin = std::min(t.margin, std::abs(sum / total - double{p.top_p}));
    }
    order.resize(kept);
    total = sum;
  }
  std::sort(order.begin(), order.end());
  const double target = uniform(p.seed, 0, static_cast<std::uint64_t>(position)) * total;
  double sum = 0.0;
  for (const std::size_t i : order) {
    sum += weight(i);
    t.margin = std::min(t.margin, std::abs(sum - target) / total);
    if (sum > target) {
      t.id = static_cast<token_id>(i);
      break;
    }
  }
  return t;
}

}  // namespace

TEST_CASE("Philox gives the numbers published with it") {
  using words = std::array<std::uint32_t, 4>;
  CHECK(philox_4x32({0, 0, 0, 0}, {0, 0}) == words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox_4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox_4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
  CHECK(uniform(0, 0, 0) == static_cast<double>(0x6627e8d5e169c58dU >> 11U) * 0x1.0p-53);
}

TEST_CASE("uniform numbers are below one, spread evenly, and differ by seed, stream and counter") {
  std::array<int, 64> count{};
  for (std::uint64_t i = 0; i < 64'000; ++i) {
    const double u = uniform(42, 3, i);
    REQUIRE(u >= 0.0);
    REQUIRE(u < 1.0);
    ++count[static_cast<std::size_t>(u * 64)];
  }
  double chi_square = 0.0;
  for (const int c : count) chi_square += (c - 1000.0) * (c - 1000.0) / 1000.0;
  CHECK(chi_square < 103.4);  // 63 degrees of freedom, p = 0.001
  CHECK(uniform(1, 0, 5) != uniform(2, 0, 5));
  CHECK(uniform(1, 0, 5) != uniform(1, 1, 5));
  CHECK(uniform(1, 0, 5) != uniform(1, 0, 6));
  CHECK(uniform(1, 0, 5) != uniform(1, 0, 5 + (std::uint64_t{1} << 32U)));
}

TEST_CASE("the exponential is within 2 ulp, and nothing far below") {
  for (int i = 0; i <= 868'000; ++i) {
    const float x = -static_cast<float>(i) * 1e-4F;
    const double want = std::exp(static_cast<double>(x));
    REQUIRE(std::abs(static_cast<double>(exp_nonpositive(x)) - want) <= 2.4e-7 * want);
  }
  CHECK(exp_nonpositive(0.0F) == 1.0F);
  CHECK(exp_nonpositive(-1000.0F) == 0.0F);
  CHECK(exp_nonpositive(-infinity) == 0.0F);
  CHECK(exp_nonpositive(nan_value) == 0.0F);
}

TEST_CASE("greedy takes the largest logit, of equal ones the smaller id") {
  for (const std::size_t size : {1U, 2U, 15U, 16U, 17U, 511U, 513U, 1000U, 49'152U}) {
    const std::uint32_t seed = static_cast<std::uint32_t>(size);
    std::vector<float> logits = random_logits(size, seed);
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    CHECK(sample_once(greedy(), logits) == static_cast<token_id>(best));
    logits.assign(size, -2.5F);
    CHECK(sample_once(greedy(), logits) == 0);
    logits[size / 2] = logits[size - 1] = 4.0F;
    CHECK(sample_once(greedy(), logits) == static_cast<token_id>(size / 2));
  }
}

TEST_CASE("a NaN is never drawn, and infinities have a meaning") {
  sampling_parameters warm;
  for (const sampling_parameters& p : {greedy(), warm}) {
    CHECK(sample_once(p, {nan_value, -3.0F, nan_value}) == 1);
    CHECK(sample_once(p, {-1.0F, infinity, infinity, nan_value}) == 1);
    CHECK(sample_once(p, {-infinity, -infinity, 2.0F}) == 2);
    CHECK(sample_once(p, {-infinity, nan_value, -infinity}) == 0);
    CHECK(sample_once(p, {-infinity, -infinity, -infinity}, 0, {}, {}, {0, 1}) == 2);
  }
  const std::vector<float> odd{nan_value, infinity, infinity, 3.0F, -infinity};
  CHECK(score(odd, 1, 0).logprob == Approx(std::log(0.5)));
  CHECK(score(odd, 3, 0).logprob == -9999.0F);
  CHECK(score(odd, 0, 0).logprob == -9999.0F);
  CHECK(score(std::vector<float>{-infinity, -infinity}, 1, 2).logprob == -9999.0F);
}

TEST_CASE("every combination of settings draws what the definition in float64 draws") {
  std::mt19937 random(7);
  const auto pick = [&](std::initializer_list<float> values) {
    return *(values.begin() + random() % values.size());
  };
  int close_calls = 0;
  for (int i = 0; i < 3000; ++i) {
    const auto size = static_cast<std::size_t>(pick({2, 31, 200, 1000, 3001}));
    const auto logits =
        random_logits(size, static_cast<std::uint32_t>(random()), pick({0.1F, 1.0F, 4.0F}));
    const auto some_id = [&] { return static_cast<token_id>(random() % size); };
    sampling_parameters p;
    p.seed = random();
    p.temperature = pick({0.2F, 0.7F, 1.0F, 1.8F});
    p.top_p = pick({1.0F, 1.0F, 0.95F, 0.5F, 0.01F});
    p.top_k = static_cast<int>(pick({0, 0, 1, 5, 50, 900}));
    p.min_p = pick({0.0F, 0.0F, 0.05F, 0.9F});
    p.repetition_penalty = pick({1.0F, 1.3F, 0.8F});
    p.frequency_penalty = pick({0.0F, 0.5F, -0.5F});
    p.presence_penalty = pick({0.0F, 1.5F});
    std::vector<token_id> prompt;
    std::vector<token_id> generated;
    for (int j = 0; j < 20; ++j) {
      prompt.push_back(some_id());
      generated.push_back(some_id());
      if (random() % 3 == 0) generated.push_back(generated.back());
    }
    if (random() % 4 == 0) p.logit_bias = {{some_id(), 2.0F}, {some_id(), -100.0F}};
    const int position = static_cast<int>(random() % 4000);
    const truth want = naive(p, logits, position, prompt, generated);
    if (want.margin < 2e-6) {
      ++close_calls;
      continue;
    }
    CAPTURE(i, size, p.temperature, p.top_p, p.top_k, p.min_p, want.margin);
    REQUIRE(sample_once(p, logits, position, prompt, generated) == want.id);
  }
  CHECK(close_calls < 150);
}

TEST_CASE("tokens come as often as their probability says") {
  const std::vector<float> logits{0.0F, 1.0F, 2.0F, -1.0F, 0.5F};
  for (const int top_k : {0, 4}) {
    sampling_parameters p;
    p.seed = 11;
    p.top_k = top_k;
    std::vector<double> share;
    double total = 0.0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      share.push_back(top_k == 4 && i == 3 ? 0.0 : std::exp(static_cast<double>(logits[i])));
      total += share.back();
    }
    constexpr int draws = 20'000;
    std::vector<int> count(logits.size(), 0);
    for (int i = 0; i < draws; ++i) ++count[static_cast<std::size_t>(sample_once(p, logits, i))];
    double chi_square = 0.0;
    for (std::size_t i = 0; i < share.size(); ++i) {
      const double expected = draws * share[i] / total;
      if (expected == 0.0) {
        CHECK(count[i] == 0);
        continue;
      }
      chi_square += (count[i] - expected) * (count[i] - expected) / expected;
    }
    CHECK(chi_square < 18.5);  // 4 degrees of freedom, p = 0.001
  }
}

TEST_CASE("the draw depends on seed, choice and position and on nothing else") {
  const auto logits = random_logits(500, 3, 0.5F);
  sampling_parameters p;
  p.seed = 5;
  std::vector<std::uint32_t> scratch;
  sampler one(p, 0, {}, {});
  std::vector<token_id> forward;
  for (int i = 0; i < 30; ++i) {
    auto row = logits;
    forward.push_back(one.sample(row, i, {}, scratch).id);
  }
  // A sequence that was put off and read again starts with another sampler at a later position.
  for (int i = 29; i >= 0; --i) {
    CHECK(sample_once(p, logits, i) == forward[static_cast<std::size_t>(i)]);
  }
  std::set<std::vector<token_id>> texts;
  for (int choice = 0; choice < 4; ++choice) {
    std::vector<token_id> text;
    for (int i = 0; i < 10; ++i) text.push_back(sample_once(p, logits, i, {}, {}, {}, choice));
    texts.insert(text);
  }
  CHECK(texts.size() == 4);
}

TEST_CASE("penalties count what was sampled, and a sampler made later counts the same") {
  sampling_parameters p = greedy();
  p.presence_penalty = 1.0F;
  p.frequency_penalty = 0.75F;
  const std::vector<float> logits{3.0F, 2.5F, 2.0F};
  std::vector<std::uint32_t> scratch;
  sampler one(p, 0, {}, {});
  std::vector<token_id> text;
  for (int i = 0; i < 12; ++i) {
    sampler again(p, 0, {}, text);
    auto row = logits;
    auto same_row = logits;
    text.push_back(one.sample(row, i, {}, scratch).id);
    CHECK(again.sample(same_row, i, {}, scratch).id == text.back());
  }
  CHECK(std::vector<token_id>(text.begin(), text.begin() + 4) == std::vector<token_id>{0, 1, 2, 0});
}

TEST_CASE("repetition counts the prompt, presence and frequency do not") {
  sampling_parameters p = greedy();
  p.presence_penalty = p.frequency_penalty = 2.0F;
  CHECK(sample_once(p, {3.0F, 2.0F}, 0, {0}) == 0);
  CHECK(sample_once(p, {3.0F, 2.0F}, 0, {}, {0}) == 1);
  p = greedy();
  p.repetition_penalty = 2.0F;
  CHECK(sample_once(p, {3.0F, 2.0F}, 0, {0}) == 1);
  CHECK(sample_once(p, {-2.0F, -3.0F}, 0, {0}) == 1);
}

TEST_CASE("banned ids are never drawn, whatever their bias") {
  sampling_parameters p;
  p.logit_bias = {{1, 100.0F}, {7, 100.0F}, {-1, 5.0F}};
  for (int i = 0; i < 50; ++i) {
    const token_id id = sample_once(p, {0.0F, 0.0F, 0.0F}, i, {}, {}, {1, 99, -5});
    CHECK((id == 0 || id == 2));
  }
}

TEST_CASE("log-probabilities are the model's own, whatever sampling does to the logits") {
  const auto logits = random_logits(1000, 9);
  sampling_parameters p;
  p.temperature = 0.3F;
  p.top_k = 3;
  p.repetition_penalty = 1.5F;
  p.logit_bias = {{5, 50.0F}};
  p.logprobs = 4;
  std::vector<std::uint32_t> scratch;
  auto row = logits;
  const std::vector<token_id> prompt{5, 6, 7};
  const token_logprob drawn = sampler(p, 0, prompt, {}).sample(row, 0, {}, scratch);
  CHECK(drawn.id == 5);
  CHECK(drawn == score(logits, 5, 4));
  double sum = 0.0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x));
  CHECK(drawn.logprob == Approx(static_cast<double>(logits[5]) - std::log(sum)).epsilon(1e-6));
  CHECK(drawn.rank ==
        1 + std::count_if(logits.begin(), logits.end(), [&](float x) { return x > logits[5]; }));
  REQUIRE(drawn.top.size() == 4);
  auto order = logits;
  std::sort(order.begin(), order.end(), std::greater<>());
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(logits[static_cast<std::size_t>(drawn.top[i].first)] == order[i]);
  }
}

TEST_CASE("the largest ids are found whatever the row's size and how many are asked for") {
  for (const std::size_t size : {1U, 63U, 64U, 65U, 1000U, 20'000U}) {
    auto logits = random_logits(size, static_cast<std::uint32_t>(size), 1.0F);
    for (float& x : logits) x = std::round(x * 8.0F);  // many are equal
    logits[size / 3] = nan_value;
    std::vector<std::uint32_t> order;
    for (std::uint32_t i = 0; i < size; ++i) {
      if (!std::isnan(logits[i])) order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return logits[a] > logits[b]; });
    for (const std::size_t count : {1U, 2U, 20U, 300U, 1'000'000U}) {
      auto want = order;
      want.resize(std::min(count, want.size()));
      CHECK(top_ids(logits, count) == want);
    }
  }
}

TEST_CASE("a cut by top_p among equals keeps the smaller ids") {
  const std::vector<float> logits(100, 1.5F);
  sampling_parameters p;
  p.top_p = 0.25F;
  std::set<token_id> drawn;
  for (int i = 0; i < 400; ++i) drawn.insert(sample_once(p, logits, i));
  CHECK(drawn.size() == 25);
  CHECK(*drawn.rbegin() == 24);
}
