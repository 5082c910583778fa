// A model that several devices hold together says what one device says, to the bit.
#include "tests/support/model_group.hpp"
#include "tests/support/random_adapter.hpp"
#include "tests/support/random_model.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/tiny_models.hpp"

#include <fmt/format.h>

#include <array>
#include <memory>
#include <string>
#include <utility>

using namespace tandem;
using namespace tandem::test;
using model::load_format;

namespace {

// Prompts of several sequences, in chunks and beside others' tokens.
template <class Model>
std::vector<logits_rows> conversation(Model& runner, const std::vector<std::int32_t>& ids) {
  std::vector<logits_rows> all;
  all.push_back(runner.step({fed{2, slice(ids, 20, 9)}, fed{0, slice(ids, 0, 17)}, fed{1, ids}}));
  all.push_back(runner.step({fed{0, slice(ids, 17, 1)}, fed{2, slice(ids, 3, 5)}}));
  for (std::int32_t t = 0; t < 6; ++t)
    all.push_back(runner.step({fed{0, {t}}, fed{1, {t + 1}}, fed{2, {t + 7}}}));
  return all;
}

bool can_be_split(const model::model_config& config, int ranks) {
  return model::tensor_split::make(config, {0, ranks}).has_value();
}

}  // namespace

TEST_CASE("every dense family says the same on 1, 2 and 4 devices, in every precision") {
  const auto format = GENERATE(load_format::f32, load_format::bf16, load_format::fp8,
                               load_format::q8_0, load_format::q4_1, load_format::dummy);
  int compared = 0;
  for (const std::string family : families) {
    if (family == "qwen3_moe") continue;
    const truth expected(family);
    model_runner one(tiny(family), {.format = format});
    const auto wanted = conversation(one, expected.prompt);
    for (const int ranks : {2, 4}) {
      if (!can_be_split(one.model().config, ranks)) continue;
      INFO(family << " in " << name_of(format) << " on " << ranks);
      model_group group(tiny(family), ranks, {.format = format});
      CHECK(conversation(group, expected.prompt) == wanted);
      CHECK(group.rank(1).model().parameter_count == one.model().parameter_count);
      CHECK(group.rank(1).model().precision == one.model().precision);
      ++compared;
    }
  }
  CHECK(compared == 14);
}

TEST_CASE("so they do on every instruction set, with keys and values in half precision") {
  for (const auto set : kernels::cpu::supported_instruction_sets()) {
    const runner_options how{
        .format = load_format::q4_1, .set = set, .kv = kernels::kv_format::f16};
    for (const std::string family : {"llama_tied", "gemma3_local_global", "phi3_fused"}) {
      const truth expected(family);
      model_runner one(tiny(family), how);
      model_group group(tiny(family), 2, how);
      INFO(family << " on " << one.device().name());
      CHECK(conversation(group, expected.prompt) == conversation(one, expected.prompt));
    }
  }
}

TEST_CASE("sizes that do not divide are split unevenly and say the same") {
  // 9 query heads of 24 over 3 key heads, D of 4.5 and F of 6.5 units of 16, an odd vocabulary.
  const std::string config = R"({"model_type":"qwen2","architectures":["Qwen2ForCausalLM"],
      "hidden_size":72,"intermediate_size":104,"num_hidden_layers":3,"num_attention_heads":9,
      "num_key_value_heads":3,"head_dim":24,"vocab_size":331,"max_position_embeddings":256,
      "rms_norm_eps":1e-6,"rope_theta":10000.0,"hidden_act":"silu","tie_word_embeddings":TIED})";
  std::vector<std::int32_t> ids;
  for (int i = 0; i < 40; ++i) ids.push_back((i * 37 + 11) % 331);
  for (const std::string tied : {"true", "false"}) {
    const temporary_folder folder;
    auto text = config;
    text.replace(text.find("TIED"), 4, tied);
    write_random_model(folder.path(), text, 5);
    for (const auto format : {load_format::f32, load_format::bf16, load_format::q8_0}) {
      model_runner one(folder.path(), {.format = format});
      const auto wanted = conversation(one, ids);
      for (const int ranks : {2, 3, 9}) {
        INFO(name_of(format) << " over " << ranks << ", tied " << tied);
        model_group group(folder.path(), ranks, {.format = format});
        CHECK(conversation(group, ids) == wanted);
      }
    }
  }
}

TEST_CASE("ranks without outputs of their own take part") {
  // 2 units of D for 4 ranks, and one key head for all.
  const std::string config = R"({"model_type":"llama","architectures":["LlamaForCausalLM"],
      "hidden_size":32,"intermediate_size":40,"num_hidden_layers":2,"num_attention_heads":4,
      "num_key_value_heads":1,"head_dim":8,"vocab_size":50,"max_position_embeddings":256,
      "rms_norm_eps":1e-6,"rope_theta":10000.0,"hidden_act":"silu","tie_word_embeddings":false})";
  const temporary_folder folder;
  write_random_model(folder.path(), config, 6);
  std::vector<std::int32_t> ids;
  for (int i = 0; i < 40; ++i) ids.push_back((i * 7 + 3) % 50);
  for (const auto format : {load_format::f32, load_format::q4_1}) {
    model_runner one(folder.path(), {.format = format});
    model_group group(folder.path(), 4, {.format = format});
    CHECK(group.rank(3).model().layers[0].down_DF.rows == 0);
    CHECK(conversation(group, ids) == conversation(one, ids));
  }
}

TEST_CASE("adapters are split as the products they belong to, beside rows that have none") {
  for (const std::string family : families) {
    if (family == "qwen3_moe") continue;
    const auto ids = truth(family).prompt;
    model_runner one(tiny(family));
    const auto whole = random_adapter(one.device(), one.book(), one.model().config, 7);
    const auto other = random_adapter(one.device(), one.book(), one.model().config, 8,
                                      {.rank = 3, .targets = {"v_proj", "qkv_proj", "down_proj"}});
    const auto wanted = one.step({{0, slice(ids, 0, 9), nullptr},
                                  {1, ids, whole.get()},
                                  {2, slice(ids, 3, 5), other.get()}});
    for (const int ranks : {2, 4}) {
      model_group group(tiny(family), ranks);
      std::vector<std::array<std::shared_ptr<model::adapter>, 2>> parts;
      for (int rank = 0; rank < ranks; ++rank) {
        auto& at = group.rank(rank);
        const auto part_of = [&](const model::adapter& from) {
          auto part = model::adapter_part(at.device(), at.book(), at.model().config, from.layout,
                                          from.memory.bytes(), {rank, ranks});
          if (!part) FAIL(part.error().detail);
          CHECK(at.pass().check(**part));
          return *part;
        };
        CHECK_FALSE(at.pass().check(*whole));
        parts.push_back({part_of(*whole), part_of(*other)});
      }
      INFO(family << " over " << ranks);
      CHECK(group.step([&](int rank) {
        const auto& mine = parts[static_cast<std::size_t>(rank)];
        return std::vector<fed>{{0, slice(ids, 0, 9), nullptr},
                                {1, ids, mine[0].get()},
                                {2, slice(ids, 3, 5), mine[1].get()}};
      }) == wanted);
    }
  }
}

TEST_CASE("a rank takes memory for its part of the matrices and no more") {
  const std::string config = R"({"model_type":"llama","architectures":["LlamaForCausalLM"],
      "hidden_size":128,"intermediate_size":384,"num_hidden_layers":2,"num_attention_heads":8,
      "num_key_value_heads":4,"head_dim":16,"vocab_size":512,"max_position_embeddings":256,
      "rms_norm_eps":1e-6,"rope_theta":10000.0,"hidden_act":"silu","tie_word_embeddings":false})";
  const temporary_folder folder;
  write_random_model(folder.path(), config, 3);
  const auto used = [](model_runner& runner) {
    return runner.book().used_by(memory::owner::weights);
  };
  const runner_options how{.format = load_format::bf16};
  model_runner one(folder.path(), how);
  model_group group(folder.path(), 4, how);
  // The embedding and the norms are whole on each.
  const std::uint64_t everywhere = 512 * 128 * 2 + 5 * 128 * 4;
  for (int rank = 0; rank < 4; ++rank)
    CHECK(used(group.rank(rank)) == everywhere + (used(one) - everywhere) / 4);
  fmt::print("weights of one device {}, of each of four {}, of which {} everywhere\n", used(one),
             used(group.rank(0)), everywhere);
}

TEST_CASE("what cannot be split is refused before anything is loaded") {
  const auto device = kernels::cpu::make_backend({.cores = {}});
  memory::ledger book(1 << 30);
  for (const auto& [family, ranks] : {std::pair{"llama_tied", 3}, std::pair{"qwen3_moe", 2}}) {
    const auto source = model::model_source::open(tiny(family));
    const auto refused = (*source)->load(*device, book, load_format::f32, {}, {0, ranks});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().param == "model.tensor_parallel");
    CHECK(book.used() == 0);
  }
}
