// The tiny models on a GPU, against the same float64 truth and the same rules as on the CPU.
#include "tests/support/gpu.hpp"
#include "tests/support/model_group.hpp"
#include "tests/support/model_runner.hpp"
#include "tests/support/random_model.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/tiny_models.hpp"

#include <fmt/format.h>

using namespace tandem;
using namespace tandem::test;
using model::load_format;

TEST_CASE("on a GPU every family's logits lie within 1e-4 of the float64 truth", "[gpu]") {
  if (no_gpu()) return;
  for (const std::string family : families) {
    const truth expected(family);
    model_runner runner(tiny(family), {.gpu = 0});
    const auto logits = runner.read(expected.prompt);
    const double error = largest_difference(logits.back(), expected.logits_last);
    INFO(family << " on " << runner.device().name());
    CHECK(error < 1e-4);
    fmt::print("{} on {}: logits within {:.1e}\n", family, runner.device().name(), error);

    runner.forget();
    std::vector<std::int32_t> found{best_of(runner.read(expected.greedy_prompt).back())};
    while (found.size() < expected.greedy_ids.size())
      found.push_back(best_of(runner.read({found.back()}).back()));
    CHECK(found == expected.greedy_ids);
  }
}

TEST_CASE("on a GPU chunks and neighbours do not change a bit", "[gpu]") {
  if (no_gpu()) return;
  for (const auto& [format, kv] : {std::pair{load_format::f32, kernels::kv_format::f32},
                                   std::pair{load_format::bf16, kernels::kv_format::f16},
                                   std::pair{load_format::fp8, kernels::kv_format::f16},
                                   std::pair{load_format::q8_0, kernels::kv_format::f16},
                                   std::pair{load_format::q4_1, kernels::kv_format::f16}}) {
    for (const std::string family : families) {
      const truth expected(family);
      const auto& ids = expected.prompt;
      model_runner solo(tiny(family), {.format = format, .kv = kv, .gpu = 0});
      const auto alone = solo.read(ids);
      INFO(family << " in " << solo.model().precision);

      model_runner runner(tiny(family), {.format = format, .kv = kv, .gpu = 0});
      const auto first = runner.step({{2, slice(ids, 20, 9)}, {0, slice(ids, 0, 17)}, {1, ids}});
      const auto second = runner.step({{0, slice(ids, 17, 1)}, {2, slice(ids, 3, 5)}});
      const auto third = runner.step({{1, {5}}, {0, slice(ids, 18, 22)}});
      for (std::size_t t = 0; t < 17; ++t) CHECK(first[9 + t] == alone[t]);
      for (std::size_t t = 0; t < ids.size(); ++t) CHECK(first[26 + t] == alone[t]);
      CHECK(second[0] == alone[17]);
      for (std::size_t t = 18; t < ids.size(); ++t) CHECK(third[t - 17] == alone[t]);
    }
  }
}

TEST_CASE("on a GPU smaller precisions stay near the truth", "[gpu]") {
  if (no_gpu()) return;
  struct bound {
    load_format format;
    double loss;  // mean |log-probability - truth|
  };
  for (const auto& [format, loss] : {bound{load_format::bf16, 0.01}, bound{load_format::q8_0, 0.05},
                                     bound{load_format::fp8, 0.3}, bound{load_format::q4_1, 0.5}}) {
    for (const std::string family : families) {
      const truth expected(family);
      model_runner runner(tiny(family),
                          {.format = format, .kv = kernels::kv_format::f16, .gpu = 0});
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
    }
  }
}

TEST_CASE("an adapter copied to a GPU changes its logits as on the CPU", "[gpu]") {
  if (no_gpu()) return;
  for (const std::string family : {"llama_tied", "phi3_fused"}) {
    INFO(family);
    const truth expected(family);
    model_runner cpu(tiny(family));
    model_runner gpu(tiny(family), {.gpu = 0});
    const auto& config = cpu.model().config;
    const auto layout = model::adapter_layout::make(
        cpu.device(), config, 4, 8.0, {"q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"});
    if (!layout) continue;  // a family with fused names
    auto made = model::adapter::reserve(cpu.device(), cpu.book(), config, *layout);
    REQUIRE(made);
    unsigned seed = 1;
    const auto numbers = [&](std::int64_t count) {
      std::vector<float> some(static_cast<std::size_t>(count));
      for (float& one : some) {
        seed = seed * 1664525U + 1013904223U;
        one = static_cast<float>(seed >> 8U) / 16777216.0F - 0.5F;
      }
      return some;
    };
    model::fill_adapter(cpu.device(), (*made)->layers, *layout,
                        [&](const model::adapter_module& module) {
                          return model::module_numbers{numbers(module.rank * module.columns),
                                                       numbers(module.rows * module.rank)};
                        });
    // Float32 lies alike on both: the same bytes.
    const auto there = model::adapter::reserve(gpu.device(), gpu.book(), config, *layout);
    REQUIRE(there);
    gpu.device().write((*made)->memory.bytes().first(layout->bytes),
                       (*there)->memory.bytes().data());
    const auto plain = cpu.read(expected.prompt, 0);
    const auto want = cpu.read(expected.prompt, 1, made->get());
    const auto got = gpu.read(expected.prompt, 1, there->get());
    CHECK(largest_difference(got.back(), want.back()) < 1e-3);
    CHECK(largest_difference(plain.back(), want.back()) > 1e-2);
  }
}

TEST_CASE("on a GPU ranks that hold a model together say what one says, to the bit", "[gpu]") {
  if (no_gpu()) return;
  const std::string config = R"({"model_type":"llama","architectures":["LlamaForCausalLM"],
      "hidden_size":1024,"intermediate_size":2816,"num_hidden_layers":2,"num_attention_heads":16,
      "num_key_value_heads":4,"head_dim":64,"vocab_size":5000,"max_position_embeddings":256,
      "rms_norm_eps":1e-6,"rope_theta":10000.0,"hidden_act":"silu","tie_word_embeddings":false})";
  const temporary_folder folder;
  write_random_model(folder.path(), config, 4);
  std::vector<std::filesystem::path> models{folder.path()};
  for (const std::string family : families)
    if (family != "qwen3_moe") models.push_back(tiny(family));
  const auto ids = truth("llama_tied").prompt;
  const auto speak = [&ids](auto& model) {
    std::vector<logits_rows> all;
    all.push_back(model.step({fed{0, ids}, fed{1, slice(ids, 3, 30)}, fed{2, slice(ids, 1, 5)}}));
    for (std::int32_t t = 0; t < 5; ++t)
      all.push_back(model.step({fed{0, {t}}, fed{1, {t + 1}}, fed{2, {t + 7}}}));
    all.push_back(model.step({fed{3, {7}}}));
    return all;
  };
  for (const auto& [format, kv] : {std::pair{load_format::f32, kernels::kv_format::f32},
                                   std::pair{load_format::bf16, kernels::kv_format::f16},
                                   std::pair{load_format::q8_0, kernels::kv_format::f16},
                                   std::pair{load_format::q4_1, kernels::kv_format::f16}}) {
    for (const auto& path : models) {
      const runner_options how{.format = format, .kv = kv, .gpu = 0};
      model_runner one(path, how);
      const auto wanted = speak(one);
      for (const int ranks : {2, 4}) {
        model_group group(path, ranks, how);  // all on this GPU
        INFO(path.filename() << " in " << name_of(format) << " over " << ranks);
        CHECK(speak(group) == wanted);
      }
    }
  }
}
