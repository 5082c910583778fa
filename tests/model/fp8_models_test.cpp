// FP8 checkpoints as Hugging Face's tools write them: small random models of every kind that is
// read, against the float64 truth of their weights (tests/golden/make/fp8.py), and what is refused.
#include "runtime/model/fp8_files.hpp"
#include "runtime/model/hf_config.hpp"
#include "tests/support/model_group.hpp"
#include "tests/support/model_runner.hpp"
#include "tests/support/safetensors_text.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/tiny_models.hpp"

#include <fmt/format.h>

#include <fstream>
#include <sstream>
#include <string>

using namespace tandem;
using namespace tandem::test;
using Catch::Matchers::Contains;
using kernels::weight_format;
using model::load_format;

namespace {

constexpr std::array fp8_models{"qwen3_blocks", "qwen3_moe_blocks", "llama_tensor", "phi3_channel"};

std::filesystem::path fp8(const std::string& name) { return golden("fp8/" + name); }

truth truth_of(const std::string& name) { return truth("../fp8/" + name); }

std::string text_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// What opening the folder of `tensors` says, with the config of that model.
std::string refusal(const std::string& name, const tensor_texts& tensors,
                    const std::string& config) {
  const temporary_folder folder;
  folder.write("config.json", config);
  folder.write("model.safetensors", safetensors(tensors));
  const auto source = model::model_source::open(folder.path());
  INFO(name);
  REQUIRE_FALSE(source);
  CHECK(source.error().detail.find('\n') == std::string::npos);
  return source.error().detail;
}
std::string refusal(const std::string& name, const tensor_texts& tensors) {
  return refusal(name, tensors, text_of(fp8(name) / "config.json"));
}

std::string config_with(const std::string& quantization) {
  std::string config = text_of(golden("tiny/llama_tied/config.json"));
  config.replace(config.find('{'), 1, R"({"quantization_config":)" + quantization + ",");
  return config;
}

std::string compressed(const std::string& more, const std::string& weights) {
  return R"({"quant_method":"compressed-tensors",)" + more +
         R"("config_groups":{"group_0":{"targets":["Linear"],"weights":)" + weights + "}}}";
}

std::optional<model::fp8_scheme> scheme(const std::string& quantization) {
  const auto read = model::fp8_scheme_from_json(config_with(quantization));
  if (!read) FAIL(read.error().detail);
  return *read;
}

std::string refused_scheme(const std::string& quantization) {
  const auto read = model::config_from_json(config_with(quantization));
  REQUIRE_FALSE(read);
  CHECK(read.error().code == errc::unsupported);
  CHECK(read.error().detail.find('\n') == std::string::npos);
  return read.error().detail;
}

}  // namespace

TEST_CASE("FP8 checkpoints' logits lie within 1e-4 of the float64 truth of their weights") {
  for (const auto set : kernels::cpu::supported_instruction_sets()) {
    for (const std::string name : fp8_models) {
      const truth expected = truth_of(name);
      for (const auto format : {load_format::native, load_format::f32}) {
        model_runner runner(fp8(name), {.format = format, .set = set});
        const auto logits = runner.read(expected.prompt);
        INFO(name << " in " << name_of(format) << " on " << runner.device().name());
        CHECK(largest_difference(logits.back(), expected.logits_last) < 1e-4);
        for (std::size_t t = 0; t + 1 < expected.prompt.size(); ++t)
          CHECK(std::fabs(log_probability(logits[t], expected.prompt[t + 1]) -
                          expected.logprob_of_next[t]) < 1e-4);
      }
    }
  }
}

TEST_CASE("an FP8 checkpoint in memory is what it is on disk, and says the same as in float32") {
  for (const std::string name : fp8_models) {
    INFO(name);
    const truth expected = truth_of(name);
    model_runner native(fp8(name), {.format = load_format::native});
    model_runner wide(fp8(name), {.format = load_format::f32});
    const auto& layer = native.model().layers[0];
    CHECK(native.model().precision == "fp8");
    CHECK(layer.qkv_XD.format == weight_format::fp8);
    CHECK(layer.output_DX.format == weight_format::fp8);
    CHECK(native.model().embedding_VD.format == weight_format::bf16);
    if (layer.experts.empty()) {
      CHECK(layer.gate_up_FD.format == weight_format::fp8);
    } else {
      CHECK(layer.router_ED.format == weight_format::bf16);
      CHECK(layer.experts[1].down_DF.format == weight_format::fp8);
    }
    CHECK(native.model().memory.bytes().size() < wide.model().memory.bytes().size() * 6 / 10);
    CHECK(native.read(expected.prompt) == wide.read(expected.prompt));
  }
}

TEST_CASE("an FP8 checkpoint continues greedily as the truth does") {
  for (const std::string name : fp8_models) {
    const truth expected = truth_of(name);
    model_runner runner(fp8(name), {.format = load_format::native});
    std::vector<std::int32_t> found{best_of(runner.read(expected.greedy_prompt).back())};
    while (found.size() < expected.greedy_ids.size())
      found.push_back(best_of(runner.read({found.back()}).back()));
    INFO(name);
    CHECK(found == expected.greedy_ids);
  }
}

TEST_CASE("an FP8 checkpoint loads in every other format, near the truth") {
  struct bound {
    load_format format;
    double loss;  // mean |log-probability - truth|
  };
  for (const auto& [format, loss] :
       {bound{load_format::bf16, 0.01}, bound{load_format::q8_0, 0.05},
        bound{load_format::fp8, 1e-4}, bound{load_format::q4_1, 0.5}}) {
    for (const std::string name : fp8_models) {
      const truth expected = truth_of(name);
      model_runner runner(fp8(name), {.format = format});
      const auto logits = runner.read(expected.prompt);
      double sum = 0.0;
      for (std::size_t t = 0; t + 1 < expected.prompt.size(); ++t)
        sum += std::fabs(log_probability(logits[t], expected.prompt[t + 1]) -
                         expected.logprob_of_next[t]);
      INFO(name << " in " << name_of(format));
      CHECK(sum / static_cast<double>(expected.prompt.size() - 1) <
            (name == "qwen3_moe_blocks" && format != load_format::fp8 ? 0.2 + loss : loss));
    }
  }
}

TEST_CASE("devices that hold an FP8 model together read their rows' scales") {
  for (const std::string name : {"qwen3_blocks", "llama_tensor", "phi3_channel"}) {
    INFO(name);
    const truth expected = truth_of(name);
    model_runner one(fp8(name), {.format = load_format::native});
    model_group group(fp8(name), 2, {.format = load_format::native});
    CHECK(group.read(expected.prompt) == one.read(expected.prompt));
  }
}

TEST_CASE("scales that are missing, of another shape or no scales are refused by name") {
  const std::string weight = "model.layers.1.self_attn.q_proj.weight";
  auto blocks = tensor_texts_of(fp8("qwen3_blocks") / "model.safetensors");
  auto tensor = tensor_texts_of(fp8("llama_tensor") / "model.safetensors");
  SECTION("missing") {
    blocks.erase(weight + "_scale_inv");
    CHECK_THAT(refusal("qwen3_blocks", blocks),
               Contains("'" + weight + "' is stored as F8_E4M3 and has neither '" + weight +
                        "_scale_inv' nor '" + weight + "_scale'"));
  }
  SECTION("of another shape") {
    blocks[weight + "_scale_inv"] = {"F32", {2, 1}, std::string(8, '\0')};
    CHECK_THAT(refusal("qwen3_blocks", blocks),
               Contains("'" + weight + "_scale_inv' has the shape [2, 1]") &&
                   Contains("'" + weight + "' [160, 160]") && Contains("128 by 128"));
  }
  SECTION("not finite") {
    tensor[weight + "_scale"].bytes = std::string("\0\0\xC0\x7F", 4);
    CHECK_THAT(refusal("llama_tensor", tensor),
               Contains("'" + weight + "_scale' holds nan, which is no scale"));
  }
  SECTION("negative") {
    tensor[weight + "_scale"].bytes = std::string("\0\0\x80\xBF", 4);
    CHECK_THAT(refusal("llama_tensor", tensor), Contains("holds -1, which is no scale"));
  }
  SECTION("of a weight that is none") {
    tensor["model.norm.weight"] = {"F8_E4M3", {64}, std::string(64, '\x38')};
    CHECK_THAT(refusal("llama_tensor", tensor),
               Contains("'model.norm.weight' [64] is stored as F8_E4M3 and is no matrix"));
  }
  SECTION("without a config that says so") {
    std::string config = text_of(fp8("llama_tensor") / "config.json");
    config.replace(config.find("quantization_config"), 19, "something_else_here");
    CHECK_THAT(refusal("llama_tensor", tensor, config),
               Contains("is stored as F8_E4M3, and config.json has no quantization_config"));
  }
  SECTION("of a weight that is no FP8") {
    const temporary_folder folder;
    folder.copy(fp8("llama_tensor") / "config.json", "config.json");
    tensor[weight] = {"BF16", {64, 64}, std::string(8192, '\0')};
    folder.write("model.safetensors", safetensors(tensor));
    const auto device = kernels::cpu::make_backend({});
    const auto source = model::model_source::open(folder.path());
    REQUIRE(source);
    const auto forecast = (*source)->forecast(*device, load_format::native);
    REQUIRE_FALSE(forecast);
    CHECK_THAT(forecast.error().detail, Contains("'" + weight + "_scale' [] is not known"));
  }
}

TEST_CASE("what is exported of an FP8 base says nothing of its quantization") {
  const auto config =
      model::hf_config_from_json(text_of(fp8("qwen3_blocks") / "config.json"), "bfloat16");
  REQUIRE(config);
  CHECK(config->find("quantization_config") == nullptr);
  CHECK(config->find("hidden_size") != nullptr);
}

TEST_CASE("quantization configs of FP8 weights are understood") {
  using model::fp8_scheme;
  CHECK(scheme("null") == std::nullopt);
  CHECK(scheme(R"({"quant_method":"fp8","fmt":"e4m3","weight_block_size":[128,128]})") ==
        fp8_scheme{128, 128});
  CHECK(scheme(R"({"quant_method":"fp8","activation_scheme":"static","weight_block_size":null})") ==
        fp8_scheme{});
  const std::string start = R"({"num_bits":8,"type":"float","symmetric":true,"dynamic":false,)";
  const std::string quantized = R"("format":"float-quantized",)";
  CHECK(scheme(compressed(quantized, start + R"("strategy":"channel"})")) == fp8_scheme{});
  CHECK(scheme(compressed(R"("format":"naive-quantized",)", start + R"("strategy":"tensor"})")) ==
        fp8_scheme{});
  CHECK(
      scheme(compressed(quantized, start + R"("strategy":"block","block_structure":[128,128]})")) ==
      fp8_scheme{128, 128});
  CHECK(scheme(compressed(quantized, start + R"("strategy":"group","group_size":128})")) ==
        fp8_scheme{1, 128});
}

TEST_CASE("other quantizations are refused in one line that says what was found") {
  for (const std::string method : {"gptq", "awq", "bitsandbytes", "mxfp4", "modelopt"})
    CHECK_THAT(refused_scheme(R"({"quant_method":")" + method + R"("})"),
               Contains("(quant_method " + method + ")") && Contains("GGUF"));
  CHECK_THAT(refused_scheme(R"({"bits":4})"), Contains("quant_method not named"));
  CHECK_THAT(refused_scheme(R"({"quant_method":"fp8","fmt":"e5m2"})"), Contains("e5m2"));
  CHECK_THAT(refused_scheme(R"({"quant_method":"fp8","weight_block_size":[64,64]})"),
             Contains("64 by 64"));
  const std::string weights =
      R"({"num_bits":8,"type":"float","symmetric":true,"strategy":"channel"})";
  CHECK_THAT(refused_scheme(compressed(R"("format":"pack-quantized",)",
                                       R"({"num_bits":4,"type":"int","strategy":"group"})")),
             Contains("pack-quantized"));
  CHECK_THAT(refused_scheme(compressed(R"("format":"float-quantized",)",
                                       R"({"num_bits":8,"type":"int","strategy":"channel"})")),
             Contains("type \"int\""));
  CHECK_THAT(refused_scheme(compressed(R"("format":"int-quantized",)", weights)),
             Contains("int-quantized"));
  CHECK_THAT(refused_scheme(compressed(
                 R"("format":"float-quantized","sparsity_config":{"format":"sparse-24-bitmask"},)",
                 weights)),
             Contains("sparse-24-bitmask"));
  CHECK_THAT(
      refused_scheme(compressed(
          R"("format":"float-quantized","transform_config":{"config_groups":{}},)", weights)),
      Contains("transforms"));
  CHECK_THAT(refused_scheme(R"({"quant_method":"compressed-tensors","config_groups":{}})"),
             Contains("without config_groups of weights"));
}
