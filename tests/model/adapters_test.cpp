// Adapters over a shared base, and whole weights beside it, in one forward pass after another.
#include "tests/support/golden.hpp"
#include "tests/support/model_runner.hpp"
#include "tests/support/random_adapter.hpp"

#include <fmt/format.h>

#include <array>
#include <string>

using namespace tandem;
using namespace tandem::test;
using kernels::cpu::instruction_set;
using model::load_format;

namespace {

constexpr std::array families{"llama_tied",   "llama31_rope_untied", "mistral_window", "qwen2_bias",
                              "qwen3_qknorm", "gemma3_local_global", "phi3_fused",     "qwen3_moe"};

std::filesystem::path tiny(const std::string& family) { return golden("tiny/" + family); }

std::vector<std::int32_t> prompt_of(const std::string& family) {
  return ids_of(golden_json("tiny/" + family + "/expected.json").root()["prompt_ids"]);
}

std::shared_ptr<const model::weights> load_again(model_runner& runner, const std::string& family) {
  auto loaded = (*model::model_source::open(tiny(family)))
                    ->load(runner.device(), runner.book(), load_format::f32);
  if (!loaded) FAIL(loaded.error().detail);
  return *std::move(loaded);
}

double worst_of(const logits_rows& found, const logits_rows& wanted) {
  REQUIRE(found.size() == wanted.size());
  double worst = 0.0;
  for (std::size_t t = 0; t < found.size(); ++t)
    worst = std::max(worst, largest_difference(found[t], wanted[t]));
  return worst;
}

}  // namespace

TEST_CASE("an adapter and the dense weights it stands for give the same logits, in every family") {
  for (const auto set : kernels::cpu::supported_instruction_sets()) {
    for (const std::string family : families) {
      const auto ids = prompt_of(family);
      model_runner runner(tiny(family), {.set = set});
      const auto adapter = random_adapter(runner.device(), runner.book(), runner.model().config, 7);
      const auto merged = load_again(runner, family);
      merge_into(runner.device(), *merged, *adapter);
      const auto base = runner.read(ids, 0);
      const auto adapted = runner.read(ids, 1, adapter.get());
      const auto dense = runner.step({{2, ids}}, merged.get());
      const double apart = worst_of(adapted, dense);
      INFO(family << " on " << runner.device().name());
      CHECK(apart < 1e-4);
      CHECK(worst_of(adapted, base) > 0.01);
      CHECK(runner.read(ids, 3) == base);
      fmt::print("{} on {}: adapter and merged weights {:.1e} apart\n", family,
                 runner.device().name(), apart);
    }
  }
}

TEST_CASE("an adapter on some modules only leaves the others alone") {
  for (const std::string target :
       {"q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}) {
    const std::string family = "llama_tied";
    const auto ids = prompt_of(family);
    model_runner runner(tiny(family));
    const auto adapter = random_adapter(runner.device(), runner.book(), runner.model().config, 9,
                                        {.rank = 3, .targets = {target}});
    const auto merged = load_again(runner, family);
    merge_into(runner.device(), *merged, *adapter);
    INFO(target);
    CHECK(worst_of(runner.read(ids, 0, adapter.get()), runner.step({{1, ids}}, merged.get())) <
          1e-4);
  }
}

TEST_CASE("rows with adapters and without share steps, and each is to the bit what it is alone") {
  const auto format =
      GENERATE(load_format::f32, load_format::bf16, load_format::fp8, load_format::q4_1);
  for (const std::string family : families) {
    const auto ids = prompt_of(family);
    const runner_options options{.format = format, .sequences = 8};
    model_runner alone(tiny(family), options);
    model_runner shared(tiny(family), options);
    std::vector<std::shared_ptr<model::adapter>> here;
    std::vector<std::shared_ptr<model::adapter>> there;
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
      const adapter_options shape{.rank = static_cast<int>(3 * seed)};
      here.push_back(
          random_adapter(alone.device(), alone.book(), alone.model().config, seed, shape));
      there.push_back(
          random_adapter(shared.device(), shared.book(), shared.model().config, seed, shape));
    }
    const auto base = alone.read(ids, 0);
    const auto first = alone.read(ids, 1, here[0].get());
    const auto second = alone.read(ids, 2, here[1].get());
    const auto third = alone.read(ids, 3, here[2].get());
    const std::vector<std::int32_t> head(ids.begin(), ids.begin() + 17);
    const std::vector<std::int32_t> tail(ids.begin() + 17, ids.end());
    const auto begin =
        shared.step({{0, head}, {1, head, there[0].get()}, {2, ids, there[1].get()}});
    const auto end =
        shared.step({{5, {3, 4}}, {0, tail}, {3, ids, there[2].get()}, {1, tail, there[0].get()}});
    INFO(family << " in " << shared.model().precision);
    const auto n = ids.size();
    for (std::size_t t = 0; t < 17; ++t) CHECK(begin[t] == base[t]);
    for (std::size_t t = 0; t < 17; ++t) CHECK(begin[17 + t] == first[t]);
    for (std::size_t t = 0; t < n; ++t) CHECK(begin[34 + t] == second[t]);
    for (std::size_t t = 17; t < n; ++t) CHECK(end[2 + t - 17] == base[t]);
    for (std::size_t t = 0; t < n; ++t) CHECK(end[2 + n - 17 + t] == third[t]);
    for (std::size_t t = 17; t < n; ++t) CHECK(end[2 + n - 17 + n + t - 17] == first[t]);
  }
}

TEST_CASE("what does not fit the model is refused with the numbers") {
  model_runner runner(tiny("llama_tied"));
  auto config = runner.model().config;
  config.hidden_size += 32;
  const auto foreign = random_adapter(runner.device(), runner.book(), config, 1);
  REQUIRE_FALSE(runner.pass().check(*foreign));
  config.layers.pop_back();
  REQUIRE_FALSE(runner.pass().check(*random_adapter(runner.device(), runner.book(), config, 1)));
  model_runner other(tiny("qwen3_moe"));
  REQUIRE_FALSE(runner.pass().check(other.model()));
  const auto wide = random_adapter(runner.device(), runner.book(), runner.model().config, 1,
                                   {.rank = 600, .targets = {"q_proj", "k_proj", "v_proj"}});
  const auto refused = runner.pass().check(*wide);
  REQUIRE_FALSE(refused);
  CHECK_THAT(refused.error().detail, Catch::Contains("1800 ranks") && Catch::Contains("1536"));
  const auto fits = random_adapter(runner.device(), runner.book(), runner.model().config, 1,
                                   {.rank = 512, .targets = {"q_proj", "k_proj", "v_proj"}});
  CHECK(runner.pass().check(*fits));
  CHECK(std::isfinite(runner.read({1, 2, 3}, 0, fits.get()).back()[0]));
}
