// Tiny models turned into GGUF as llama.cpp's converter does, against the same models read from
// their Hugging Face folders.
#include "runtime/formats/gguf.hpp"
#include "runtime/formats/safetensors.hpp"
#include "tests/support/gguf_writer.hpp"
#include "tests/support/golden.hpp"
#include "tests/support/model_group.hpp"
#include "tests/support/model_runner.hpp"
#include "tests/support/temporary_folder.hpp"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <string>

using namespace tandem;
using namespace tandem::test;

namespace {

using rows = std::vector<float>;

struct tensor {
  std::vector<std::int64_t> shape;
  rows values;
};

// Every tensor of a tiny model, by its Hugging Face name.
std::map<std::string, tensor> tensors_of(const std::string& family) {
  const auto file =
      formats::safetensors_file::open(golden("tiny/" + family + "/model.safetensors"));
  REQUIRE(file);
  std::map<std::string, tensor> tensors;
  for (const auto& stored : file->tensors()) {
    rows values(stored.bytes.size() / sizeof(float));
    std::memcpy(values.data(), stored.bytes.data(), stored.bytes.size());
    tensors[stored.name] = {stored.shape, std::move(values)};
  }
  return tensors;
}

// The converter's permute(): reshape(heads, 2, H/2, D), swap the middle two.
rows interleaved(const rows& values, std::size_t heads, std::size_t H) {
  const std::size_t row = values.size() / (heads * H);
  rows out(values.size());
  for (std::size_t h = 0; h < heads; ++h)
    for (std::size_t s = 0; s < 2; ++s)
      for (std::size_t i = 0; i < H / 2; ++i)
        std::copy_n(values.begin() + static_cast<std::ptrdiff_t>((h * H + s * H / 2 + i) * row),
                    row, out.begin() + static_cast<std::ptrdiff_t>((h * H + 2 * i + s) * row));
  return out;
}

class converter {
 public:
  converter(std::string family, std::string architecture)
      : tensors_(tensors_of(family)), architecture_(std::move(architecture)) {
    out.string("general.architecture", architecture_);
    integer("block_count", 3);
    integer("context_length", 512);
    integer("embedding_length", 64);
    integer("feed_forward_length", 96);
    integer("attention.head_count", 4);
    integer("attention.head_count_kv", 2);
    number("attention.layer_norm_rms_epsilon", architecture_ == "phi3" ? 1e-5F : 1e-6F);
  }

  // Of a model with other sizes than those: as its config says.
  converter(std::string family, std::string architecture, const model::model_config& config)
      : tensors_(tensors_of(family)),
        architecture_(std::move(architecture)),
        layers_(static_cast<int>(config.layers.size())),
        query_heads_(static_cast<std::size_t>(config.query_heads)),
        key_heads_(static_cast<std::size_t>(config.key_heads)),
        experts_(config.experts) {
    out.string("general.architecture", architecture_);
    integer("block_count", static_cast<std::uint32_t>(layers_));
    integer("context_length", static_cast<std::uint32_t>(config.context_length));
    integer("embedding_length", static_cast<std::uint32_t>(config.model_size));
    integer("feed_forward_length", static_cast<std::uint32_t>(config.hidden_size));
    integer("attention.head_count", static_cast<std::uint32_t>(config.query_heads));
    integer("attention.head_count_kv", static_cast<std::uint32_t>(config.key_heads));
    integer("attention.key_length", static_cast<std::uint32_t>(config.head_size));
  }

  void integer(const std::string& key, std::uint32_t value) {
    out.integer(architecture_ + "." + key, value);
  }
  void number(const std::string& key, float value) { out.number(architecture_ + "." + key, value); }

  void convert() {
    // Whose post_attention_layernorm stands behind attention; Seed-OSS' is only called so.
    const bool behind = architecture_ == "gemma3" || architecture_ == "gemma2" ||
                        architecture_ == "olmo2" || architecture_ == "exaone4" ||
                        architecture_ == "seed_oss";
    add("model.embed_tokens.weight", "token_embd.weight");
    add("model.norm.weight", "output_norm.weight");
    add("lm_head.weight", "output.weight");
    for (int i = 0; i < layers_; ++i) {
      layer_ = i;
      layer("input_layernorm", "attn_norm");
      layer("post_attention_layernorm", behind ? "post_attention_norm" : "ffn_norm");
      layer("pre_feedforward_layernorm", "ffn_norm");
      layer("post_feedforward_layernorm", "post_ffw_norm");
      layer("self_attn.q_norm", "attn_q_norm");
      layer("self_attn.k_norm", "attn_k_norm");
      layer("self_attn.q_proj", "attn_q");
      layer("self_attn.k_proj", "attn_k");
      layer("self_attn.v_proj", "attn_v");
      layer("self_attn.qkv_proj", "attn_qkv");
      layer("self_attn.o_proj", "attn_output");
      layer("mlp.gate_up_proj", "ffn_up");
      layer("mlp.gate_proj", "ffn_gate");
      layer("mlp.up_proj", "ffn_up");
      layer("mlp.down_proj", "ffn_down");
      layer("mlp.gate", "ffn_gate_inp");
      experts("gate_proj", "ffn_gate_exps");
      experts("up_proj", "ffn_up_exps");
      experts("down_proj", "ffn_down_exps");
      layer("block_sparse_moe.gate", "ffn_gate_inp");
      experts("w1", "ffn_gate_exps");
      experts("w3", "ffn_up_exps");
      experts("w2", "ffn_down_exps");
    }
  }

  gguf_writer out;

 private:
  void add(const std::string& from, const std::string& to) {
    const auto found = tensors_.find(from);
    if (found == tensors_.end()) return;
    auto [shape, values] = found->second;
    const bool interleaves =
        architecture_ == "llama" || architecture_ == "granite" || architecture_ == "smollm3";
    const auto head_rows = [&](std::size_t heads) {
      return static_cast<std::size_t>(shape.front()) / heads;
    };
    if (interleaves && to.find("attn_q.") != std::string::npos)
      values = interleaved(values, query_heads_, head_rows(query_heads_));
    if (interleaves && to.find("attn_k.") != std::string::npos)
      values = interleaved(values, key_heads_, head_rows(key_heads_));
    if (architecture_.starts_with("gemma") && to.find("norm") != std::string::npos)
      for (float& value : values) value += 1.0F;
    out.tensor(to, shape, values);
  }
  void layer(const std::string& from, const std::string& to) {
    for (const auto* kind : {".weight", ".bias"})
      add(fmt::format("model.layers.{}.{}{}", layer_, from, kind),
          fmt::format("blk.{}.{}{}", layer_, to, kind));
  }
  void experts(const std::string& from, const std::string& to) {
    if (experts_ == 0) return;
    tensor all;
    const char* const where = from.starts_with("w") ? "block_sparse_moe" : "mlp";
    for (int e = 0; e < experts_; ++e) {
      const auto found = tensors_.find(
          fmt::format("model.layers.{}.{}.experts.{}.{}.weight", layer_, where, e, from));
      if (found == tensors_.end()) return;
      all.shape = {experts_, found->second.shape[0], found->second.shape[1]};
      all.values.insert(all.values.end(), found->second.values.begin(), found->second.values.end());
    }
    out.tensor(fmt::format("blk.{}.{}.weight", layer_, to), all.shape, all.values);
  }

  std::map<std::string, tensor> tensors_;
  std::string architecture_;
  int layers_ = 3;
  std::size_t query_heads_ = 4;
  std::size_t key_heads_ = 2;
  int experts_ = 8;
  int layer_ = 0;
};

model::model_config config_of(const std::string& family) {
  const auto source = model::model_source::open(golden("tiny/" + family));
  REQUIRE(source);
  return (*source)->config();
}

const std::vector<std::int32_t> short_prompt{1, 17, 90, 42, 5, 5, 18, 69, 45, 73,
                                             8, 90, 11, 64, 7, 3, 50, 31, 20, 77};
const std::vector<std::int32_t> prompt{1, 17, 300, 42, 5, 5, 118, 269, 145, 273,
                                       8, 90, 11,  64, 7, 3, 250, 31,  200, 77};

// The GGUF file's logits and those of the folder it came from must be equal to the bit; also where
// several devices hold the file's model together.
void expect_same_bits(converter& file, const std::string& family,
                      const std::vector<std::int32_t>& ids = prompt) {
  file.convert();
  const temporary_folder folder;
  file.out.write(folder.path() / "model.gguf");
  model_runner from_gguf(folder.path());  // a folder holding one GGUF file
  model_runner from_folder(golden("tiny/" + family));
  const auto wanted = from_folder.read(ids);
  CHECK(from_gguf.read(ids) == wanted);
  const auto& config = from_gguf.model().config;
  if (config.experts > 0 || config.wide_norms) return;
  for (const int ranks : {2, 4}) {
    INFO("over " << ranks << " devices");
    CHECK(model_group(folder.path(), ranks).read(ids) == wanted);
  }
}

std::string refusal_of(const converter& file) {
  const temporary_folder folder;
  file.out.write(folder.path() / "model.gguf");
  const auto source = model::model_source::open(folder.path() / "model.gguf");
  if (!source) return source.error().detail;
  const auto device = kernels::cpu::make_backend({});
  device->attach_calling_thread();
  memory::ledger book(1 << 30);
  const auto loaded = (*source)->load(*device, book, model::load_format::native);
  CHECK(book.used() == 0);
  return loaded ? "" : loaded.error().detail;
}

}  // namespace

TEST_CASE("a Llama GGUF file's interleaved heads are put back in order") {
  converter file("llama_tied", "llama");
  file.integer("rope.dimension_count", 16);
  expect_same_bits(file, "llama_tied");
}

TEST_CASE("a Llama 3.1 GGUF file brings its rope scaling as a tensor of factors") {
  converter file("llama31_rope_untied", "llama");
  file.number("rope.freq_base", 500000.0F);
  // As the converter computes rope_freqs.weight: factor 8, low 1, high 4, original context 64.
  rows factors;
  for (int i = 0; i < 8; ++i) {
    const double wavelength = 2.0 * M_PI * std::pow(500000.0, 2.0 * i / 16.0);
    const double smooth = (64.0 / wavelength - 1.0) / (4.0 - 1.0);
    double factor = 1.0;
    if (wavelength > 64.0)
      factor = 8.0;
    else if (wavelength > 16.0)
      factor = 1.0 / ((1.0 - smooth) / 8.0 + smooth);
    factors.push_back(static_cast<float>(factor));
  }
  file.out.tensor("rope_freqs.weight", {8}, factors);
  file.convert();
  const temporary_folder folder;
  file.out.write(folder.path() / "model.gguf");
  model_runner from_gguf(folder.path() / "model.gguf");
  model_runner from_folder(golden("tiny/llama31_rope_untied"));
  const auto wanted = from_folder.read(prompt).back();
  CHECK(largest_difference(from_gguf.read(prompt).back(), wanted) < 1e-5);
}

TEST_CASE("GGUF files of the other families compute what their folders compute") {
  SECTION("Qwen2, with biases") {
    converter file("qwen2_bias", "qwen2");
    file.number("rope.freq_base", 1000000.0F);
    expect_same_bits(file, "qwen2_bias");
  }
  SECTION("Qwen3, with head norms and heads wider than D / N") {
    converter file("qwen3_qknorm", "qwen3");
    file.number("rope.freq_base", 1000000.0F);
    file.integer("attention.key_length", 32);
    file.integer("attention.value_length", 32);
    expect_same_bits(file, "qwen3_qknorm");
  }
  SECTION("Gemma 3, whose norms have their 1 added already") {
    converter file("gemma3_local_global", "gemma3");
    file.number("rope.freq_base", 1000000.0F);
    file.integer("attention.key_length", 16);
    file.integer("attention.sliding_window", 16);
    file.integer("attention.sliding_window_pattern", 3);
    expect_same_bits(file, "gemma3_local_global");
  }
  SECTION("Phi-3, with fused matrices") {
    converter file("phi3_fused", "phi3");
    expect_same_bits(file, "phi3_fused");
  }
  SECTION("Qwen3-MoE, all experts in one tensor") {
    converter file("qwen3_moe", "qwen3moe");
    file.number("rope.freq_base", 1000000.0F);
    file.integer("attention.key_length", 16);
    file.integer("expert_count", 8);
    file.integer("expert_used_count", 2);
    file.integer("expert_feed_forward_length", 48);
    expect_same_bits(file, "qwen3_moe");
  }
}

TEST_CASE("GGUF files of further families compute what their folders compute") {
  const auto expect = [](const std::string& family, const std::string& architecture, float eps,
                         float theta, const std::function<void(converter&)>& more) {
    INFO(family);
    converter file(family, architecture, config_of(family));
    file.number("attention.layer_norm_rms_epsilon", eps);
    file.number("rope.freq_base", theta);
    more(file);
    expect_same_bits(file, family, short_prompt);
  };
  const auto nothing = [](converter&) {};
  expect("mixtral_window", "llama", 1e-5F, 1e6F, [](converter& file) {
    file.integer("expert_count", 5);
    file.integer("expert_used_count", 2);
    file.integer("attention.sliding_window", 11);
  });
  expect("smollm3_skips_rope", "smollm3", 1e-6F, 2e6F, nothing);
  expect("granite_multipliers", "granite", 1e-3F, 1e4F, [](converter& file) {
    file.number("embedding_scale", 12.0F);
    file.number("residual_scale", 0.22F);
    file.number("attention.scale", 0.0625F);
    file.number("logit_scale", 8.0F);
  });
  expect("gemma_first", "gemma", 1e-6F, 1e4F, nothing);
  expect("gemma2_softcaps", "gemma2", 1e-6F, 1e4F, [](converter& file) {
    file.integer("attention.sliding_window", 9);
    file.number("attn_logit_softcapping", 3.0F);
    file.number("final_logit_softcapping", 2.5F);
  });
  expect("olmo2_wide_norms", "olmo2", 1e-5F, 1e4F, nothing);
  expect("olmo3_yarn_window", "olmo2", 1e-5F, 5e5F, [](converter& file) {
    file.integer("attention.sliding_window", 9);
    file.out.string("olmo2.rope.scaling.type", "yarn");
    file.number("rope.scaling.factor", 4.0F);
    file.integer("rope.scaling.original_context_length", 32);
  });
  expect("exaone4_window", "exaone4", 1e-5F, 1e4F,
         [](converter& file) { file.integer("attention.sliding_window", 9); });
  expect("seed_oss_bias", "seed_oss", 1e-6F, 1e4F, nothing);
}

TEST_CASE("a GGUF model that cannot be computed is refused by name, and takes no memory") {
  using Catch::Matchers::Contains;
  SECTION("an architecture nobody here knows") {
    converter file("llama_tied", "mamba");
    CHECK_THAT(refusal_of(file), Contains("'mamba'") && Contains("qwen3moe"));
  }
  SECTION("a missing tensor") {
    CHECK_THAT(refusal_of(converter("llama_tied", "llama")),
               Contains("the vocabulary size is 0") || Contains("token_embd.weight"));
  }
  SECTION("a tensor too many") {
    converter file("llama_tied", "llama");
    file.convert();
    file.out.tensor("blk.1.attn_sinks.weight", {4}, rows{1, 2, 3, 4});
    CHECK_THAT(refusal_of(file), Contains("'blk.1.attn_sinks.weight'"));
  }
  SECTION("a tensor of another shape") {
    converter file("qwen3_qknorm", "qwen3");  // key_length is 32 and is not said
    file.convert();
    CHECK_THAT(refusal_of(file),
               Contains("blk.0.attn_q_norm.weight") && Contains("[32]") && Contains("[16]"));
  }
  SECTION("soft caps") {
    converter file("llama_tied", "llama");
    file.number("attn_logit_softcapping", 50.0F);
    file.convert();
    CHECK_THAT(refusal_of(file), Contains("attn_logit_softcapping = 50"));
  }
  SECTION("experts of a family that has none") {
    converter file("qwen2_bias", "qwen2");
    file.integer("expert_count", 8);
    file.convert();
    CHECK_THAT(refusal_of(file), Contains("qwen2.expert_count is 8"));
  }
  SECTION("numbers that would divide by zero or fill the machine") {
    const std::vector<std::string> keys{"block_count", "attention.head_count",
                                        "attention.head_count_kv", "context_length",
                                        "embedding_length"};
    for (const auto& key : keys) {
      for (const std::uint64_t value :
           {std::uint64_t{0}, ~std::uint64_t{0}, std::uint64_t{1} << 40}) {
        gguf_writer out;
        out.string("general.architecture", "llama");
        out.integer("llama.feed_forward_length", 4);
        for (const auto& other : keys)
          if (other != key) out.integer("llama." + other, 4);
        out.integer64("llama." + key, value);
        const auto bytes = out.bytes();
        const auto file = formats::gguf_file::parse(bytes);
        REQUIRE(file);
        const auto config = model::config_from_gguf(*file);
        REQUIRE_FALSE(config);
        CHECK_THAT(config.error().detail, Contains(key));
      }
    }
  }
}

TEST_CASE("a GGUF model says where its tokens end and how it is talked to") {
  converter file("llama_tied", "llama");
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types(320, 1);
  for (int i = 0; i < 320; ++i) tokens.push_back(fmt::format("t{}", i));
  tokens[7] = "<|im_end|>";
  types[7] = 3;
  tokens[9] = "<|eot_id|>";  // an ordinary token that looks like one
  file.out.strings("tokenizer.ggml.tokens", tokens);
  file.out.integers("tokenizer.ggml.token_type", types);
  file.out.integer("tokenizer.ggml.eos_token_id", 2);
  file.out.integer("tokenizer.ggml.bos_token_id", 1);
  file.out.string("tokenizer.chat_template", "{{ messages }}");
  file.convert();
  const temporary_folder folder;
  file.out.write(folder.path() / "small.gguf");
  const auto source = model::model_source::open(folder.path() / "small.gguf");
  REQUIRE(source);
  CHECK((*source)->config().eos_ids == std::vector<std::int32_t>{2, 7});
  CHECK((*source)->config().bos_id == 1);
  CHECK((*source)->chat_template() == "{{ messages }}");
  CHECK((*source)->tokenizer_path() == folder.path() / "small.gguf");
  CHECK((*source)->name() == "small");
}
