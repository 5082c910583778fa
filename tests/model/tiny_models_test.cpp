// Small random models, one for each family's peculiarities, against float64 truth made by
// Hugging Face's implementations (tests/golden/tiny).
#include "tests/support/tiny_models.hpp"
#include "tests/support/model_runner.hpp"

#include <fmt/format.h>

#include <cmath>
#include <string>

using namespace tandem;
using namespace tandem::test;
using kernels::cpu::instruction_set;
using model::load_format;

namespace {

// As a step of serving samples them (runtime/serve/step_runner.cpp).
logits_rows capped(logits_rows rows, float cap) {
  if (cap <= 0.0F) return rows;
  for (auto& row : rows)
    for (float& logit : row) logit = cap * std::tanh(logit / cap);
  return rows;
}

void check_against_truth(const std::string& family, instruction_set set) {
  const truth expected(family);
  model_runner runner(tiny(family), {.set = set});
  INFO(family << " on " << runner.device().name());
  const auto logits = capped(runner.read(expected.prompt), runner.model().config.logit_softcap);
  CHECK(largest_difference(logits.back(), expected.logits_last) < 1e-4);
  for (std::size_t t = 0; t + 1 < expected.prompt.size(); ++t)
    CHECK(std::fabs(log_probability(logits[t], expected.prompt[t + 1]) -
                    expected.logprob_of_next[t]) < 1e-4);
  model_runner again(tiny(family), {.set = set});
  std::vector<std::int32_t> found{best_of(again.read(expected.greedy_prompt).back())};
  while (found.size() < expected.greedy_ids.size())
    found.push_back(best_of(again.read({found.back()}).back()));
  CHECK(found == expected.greedy_ids);
}

}  // namespace

TEST_CASE("further families' logits and texts are the truth's, on every instruction set") {
  for (const auto set : kernels::cpu::supported_instruction_sets())
    for (const std::string family : further_families) check_against_truth(family, set);
}

TEST_CASE("every family's logits lie within 1e-4 of the float64 truth, on every instruction set") {
  for (const auto set : kernels::cpu::supported_instruction_sets()) {
    for (const std::string family : families) {
      const truth expected(family);
      model_runner runner(tiny(family), {.set = set});
      const auto logits = runner.read(expected.prompt);
      const double error = largest_difference(logits.back(), expected.logits_last);
      INFO(family << " on " << runner.device().name());
      CHECK(error < 1e-4);
      double worst_logprob = 0.0;
      for (std::size_t t = 0; t + 1 < expected.prompt.size(); ++t)
        worst_logprob =
            std::max(worst_logprob, std::fabs(log_probability(logits[t], expected.prompt[t + 1]) -
                                              expected.logprob_of_next[t]));
      CHECK(worst_logprob < 1e-4);
      fmt::print("{} on {}: logits within {:.1e}, log-probabilities within {:.1e}\n", family,
                 runner.device().name(), error, worst_logprob);
    }
  }
}

TEST_CASE("every family continues greedily as the truth does, on every instruction set") {
  for (const auto set : kernels::cpu::supported_instruction_sets()) {
    for (const std::string family : families) {
      const truth expected(family);
      model_runner runner(tiny(family), {.set = set});
      std::vector<std::int32_t> found{best_of(runner.read(expected.greedy_prompt).back())};
      while (found.size() < expected.greedy_ids.size())
        found.push_back(best_of(runner.read({found.back()}).back()));
      INFO(family << " on " << runner.device().name());
      CHECK(found == expected.greedy_ids);
    }
  }
}

TEST_CASE("a prompt read in chunks gives the same bits as read at once") {
  const auto format = GENERATE(load_format::f32, load_format::q8_0);
  for (const std::string family : families) {
    const truth expected(family);
    model_runner runner(tiny(family), {.format = format});
    const auto whole = runner.read(expected.prompt, 0);
    logits_rows chunked;
    std::size_t at = 0;
    for (const std::size_t count : {7U, 13U, 20U}) {
      for (auto& row : runner.read(slice(expected.prompt, at, count), 1))
        chunked.push_back(std::move(row));
      at += count;
    }
    INFO(family << " in " << runner.model().precision);
    CHECK(chunked == whole);
  }
}

TEST_CASE("a sequence's logits do not depend on who shares its steps") {
  const auto format = GENERATE(load_format::f32, load_format::bf16, load_format::q4_1);
  for (const std::string family : families) {
    const truth expected(family);
    const auto& ids = expected.prompt;
    model_runner solo(tiny(family), {.format = format});
    const auto alone = solo.read(ids);

    model_runner runner(tiny(family), {.format = format});
    const auto first = runner.step({{2, slice(ids, 20, 9)}, {0, slice(ids, 0, 17)}, {1, ids}});
    const auto second = runner.step({{0, slice(ids, 17, 1)}, {2, slice(ids, 3, 5)}});
    const auto third = runner.step({{1, {5}}, {0, slice(ids, 18, 22)}});
    INFO(family << " in " << runner.model().precision);
    for (std::size_t t = 0; t < 17; ++t) CHECK(first[9 + t] == alone[t]);
    for (std::size_t t = 0; t < ids.size(); ++t) CHECK(first[26 + t] == alone[t]);
    CHECK(second[0] == alone[17]);
    for (std::size_t t = 18; t < ids.size(); ++t) CHECK(third[t - 17] == alone[t]);
  }
}

TEST_CASE("smaller precisions stay near the truth") {
  struct bound {
    load_format format;
    double loss;  // mean |log-probability - truth|
  };
  for (const auto& [format, loss] : {bound{load_format::bf16, 0.01}, bound{load_format::q8_0, 0.05},
                                     bound{load_format::q4_1, 0.5}}) {
    for (const std::string family : families) {
      const truth expected(family);
      model_runner runner(tiny(family), {.format = format, .kv = kernels::kv_format::f16});
      const auto logits = runner.read(expected.prompt);
      double sum = 0.0;
      for (std::size_t t = 0; t + 1 < expected.prompt.size(); ++t)
        sum += std::fabs(log_probability(logits[t], expected.prompt[t + 1]) -
                         expected.logprob_of_next[t]);
      const double mean = sum / static_cast<double>(expected.prompt.size() - 1);
      INFO(family << " in " << name_of(format));
      // A rounded hidden state may choose another expert.
      CHECK(mean < (family == "qwen3_moe" ? 0.2 + loss : loss));
      CHECK(mean > 0.0);
      CHECK(runner.model().precision == name_of(format));
    }
  }
}

TEST_CASE("a dummy model has random weights that are the same every time") {
  for (const std::string family : families) {
    model_runner first(tiny(family), {.format = load_format::dummy});
    model_runner second(tiny(family), {.format = load_format::dummy});
    const auto logits = first.read({1, 2, 3});
    INFO(family);
    CHECK(logits == second.read({1, 2, 3}));
    CHECK(std::isfinite(logits.back()[0]));
    CHECK(logits.back() != logits.front());
    CHECK(first.model().parameter_count == model_runner(tiny(family)).model().parameter_count);
  }
}
