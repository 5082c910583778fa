// config.json as published: the older layout that most models on the hub have, and what must be
// refused.
#include "runtime/model/model_config.hpp"

#include <fmt/format.h>

#include <cmath>
#include <string>

using namespace tandem;
using namespace tandem::model;
using Catch::Matchers::Contains;

namespace {

model_config config_of(const std::string& json) {
  const auto config = config_from_json(json);
  if (!config) FAIL(config.error().detail);
  return *config;
}

std::string refusal(const std::string& json) {
  const auto config = config_from_json(json);
  REQUIRE_FALSE(config);
  return config.error().detail;
}

// A small Llama config with some fields set otherwise, or added.
std::string llama_with(const std::string& fields) {
  return R"({"model_type":"llama","hidden_size":64,"intermediate_size":96,"num_hidden_layers":2,
             "num_attention_heads":4,"num_key_value_heads":2,"vocab_size":320,
             "max_position_embeddings":512)" +
         (fields.empty() ? "" : "," + fields) + "}";
}

double plain_frequency(double theta, int i, int rotary) {
  return std::pow(theta, -2.0 * i / rotary);
}

std::vector<int> windows_of(const model_config& config) {
  std::vector<int> windows;
  for (const auto& layer : config.layers) windows.push_back(layer.window);
  return windows;
}

}  // namespace

TEST_CASE("Llama 2's config: as many key heads as query heads, no head_dim, rope_scaling null") {
  const auto config = config_of(R"({
    "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
    "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
    "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "llama",
    "num_attention_heads": 32, "num_hidden_layers": 32, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05, "rope_scaling": null, "tie_word_embeddings": false,
    "torch_dtype": "float16", "transformers_version": "4.31.0.dev0", "use_cache": true,
    "vocab_size": 32000})");
  CHECK(config.family == "llama");
  CHECK(config.key_heads == 32);
  CHECK(config.head_size == 128);
  CHECK(config.context_length == 4096);
  CHECK(config.norm_eps == 1e-5F);
  CHECK(config.attention_scale == Approx(1.0 / std::sqrt(128.0)));
  CHECK(config.eos_ids == std::vector<std::int32_t>{2});
  CHECK(config.bos_id == 1);
  CHECK_FALSE(config.tied_head);
  CHECK_FALSE(config.qkv_bias);
  REQUIRE(config.ropes.size() == 1);
  REQUIRE(config.ropes[0].inverse_frequency.size() == 64);
  CHECK(config.ropes[0].inverse_frequency[10] == Approx(plain_frequency(10000.0, 10, 128)));
}

TEST_CASE("Llama 3.1's config: several ends, and a rope whose low frequencies are slowed down") {
  const auto config = config_of(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
    "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 128256})");
  CHECK(config.eos_ids == std::vector<std::int32_t>{128001, 128008, 128009});
  const auto& f = config.ropes.at(0).inverse_frequency;
  CHECK(f[0] == 1.0F);                                               // kept
  CHECK(f[20] == Approx(plain_frequency(500000.0, 20, 128)));        // kept
  CHECK(f[63] == Approx(plain_frequency(500000.0, 63, 128) / 8.0));  // slowed
  const double blended = f[32] / plain_frequency(500000.0, 32, 128);
  CHECK(blended > 1.0 / 8.0);
  CHECK(blended < 1.0);
}

TEST_CASE("Mistral's window covers every layer, and null means none") {
  const std::string mistral = R"({
    "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
    "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
    "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32,
    "num_hidden_layers": 3, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0, "tie_word_embeddings": false, "vocab_size": 32000,
    "sliding_window": )";
  CHECK(windows_of(config_of(mistral + "4096}")) == std::vector<int>{4096, 4096, 4096});
  CHECK(windows_of(config_of(mistral + "null}")) == std::vector<int>{0, 0, 0});
}

TEST_CASE("Qwen2 always has biases, and windows only where it says so") {
  const auto qwen2 = [](const std::string& window_fields) {
    return R"({"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0,
      "bos_token_id": 151643, "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 896,
      "intermediate_size": 4864, "max_position_embeddings": 32768, "model_type": "qwen2",
      "num_attention_heads": 14, "num_hidden_layers": 4, "num_key_value_heads": 2,
      "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "tie_word_embeddings": true,
      "vocab_size": 151936, )" +
           window_fields + "}";
  };
  const auto plain = config_of(qwen2(R"("sliding_window": 32768, "max_window_layers": 2,
                         "use_sliding_window": false)"));
  CHECK(plain.qkv_bias);
  CHECK_FALSE(plain.output_bias);
  CHECK(plain.tied_head);
  CHECK(plain.head_size == 64);
  CHECK(windows_of(plain) == std::vector<int>{0, 0, 0, 0});
  CHECK(windows_of(config_of(qwen2(R"("sliding_window": 1024, "max_window_layers": 2,
                                      "use_sliding_window": true)"))) ==
        std::vector<int>{0, 0, 1024, 1024});
}

TEST_CASE("Qwen3 has head norms, and heads of their own size") {
  const auto config = config_of(R"({
    "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "bos_token_id": 151643,
    "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
    "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28,
    "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null,
    "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": true,
    "use_sliding_window": false, "vocab_size": 151936})");
  CHECK(config.head_norms);
  CHECK(config.head_size == 128);
  CHECK_FALSE(config.qkv_bias);
  CHECK(config.attention_scale == Approx(1.0 / std::sqrt(128.0)));
}

TEST_CASE("Qwen3-MoE: experts in every layer but those named") {
  const auto moe = [](const std::string& fields) {
    return R"({"architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false,
      "decoder_sparse_step": 1, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
      "hidden_size": 2048, "intermediate_size": 6144, "max_position_embeddings": 40960,
      "max_window_layers": 48, "model_type": "qwen3_moe", "moe_intermediate_size": 768,
      "norm_topk_prob": true, "num_attention_heads": 32, "num_experts": 128,
      "num_experts_per_tok": 8, "num_hidden_layers": 4, "num_key_value_heads": 4,
      "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": null,
      "tie_word_embeddings": false, "use_sliding_window": false, "vocab_size": 151936, )" +
           fields + "}";
  };
  const auto layers = [](const model_config& config) {
    std::vector<bool> moe_layers;
    for (const auto& layer : config.layers) moe_layers.push_back(layer.moe);
    return moe_layers;
  };
  const auto config = config_of(moe(R"("mlp_only_layers": [1])"));
  CHECK(config.experts == 128);
  CHECK(config.experts_per_token == 8);
  CHECK(config.expert_hidden_size == 768);
  CHECK(config.normalize_expert_weights);
  CHECK(layers(config) == std::vector<bool>{true, false, true, true});
}

TEST_CASE("Gemma 3's text model: five windows to one full view, each with a rope of its own") {
  const auto config = config_of(R"({
    "architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "attn_logit_softcapping": null, "bos_token_id": 2, "cache_implementation": "hybrid",
    "eos_token_id": [1, 106], "final_logit_softcapping": null, "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "initializer_range": 0.02,
    "intermediate_size": 6912, "max_position_embeddings": 32768, "model_type": "gemma3_text",
    "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
    "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000, "rope_scaling": null, "rope_theta": 1000000,
    "sliding_window": 512, "sliding_window_pattern": 6, "torch_dtype": "bfloat16",
    "vocab_size": 262144})");
  CHECK(config.tied_head);
  CHECK(config.norm_weight_plus_one);
  CHECK(config.post_norms);
  CHECK(config.head_norms);
  CHECK(config.activation == kernels::activation::gelu_tanh);
  CHECK(config.embedding_scale == Approx(std::sqrt(1152.0)));
  REQUIRE(config.ropes.size() == 2);
  CHECK(config.ropes[0].inverse_frequency[1] == Approx(plain_frequency(1e6, 1, 256)));
  CHECK(config.ropes[1].inverse_frequency[1] == Approx(plain_frequency(1e4, 1, 256)));
  for (std::size_t i = 0; i < 26; ++i) {
    const bool full = i % 6 == 5;
    CHECK(config.layers[i].window == (full ? 0 : 512));
    CHECK(config.layers[i].rope == (full ? 0 : 1));
  }
}

TEST_CASE("Gemma 3 with pictures keeps its text model's config inside, with most of it left out") {
  const auto config = config_of(R"({
    "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999,
    "eos_token_id": [1, 106], "image_token_index": 262144, "initializer_range": 0.02,
    "mm_tokens_per_image": 256, "model_type": "gemma3",
    "text_config": {"hidden_size": 2560, "intermediate_size": 10240,
                    "model_type": "gemma3_text", "num_hidden_layers": 34,
                    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                    "sliding_window": 1024},
    "torch_dtype": "bfloat16", "vision_config": {"hidden_size": 1152}})");
  CHECK(config.family == "gemma3");
  CHECK(config.vocabulary_size == 262208);
  CHECK(config.query_heads == 8);
  CHECK(config.key_heads == 4);
  CHECK(config.head_size == 256);
  CHECK(config.context_length == 131072);
  CHECK(config.tied_head);
  CHECK(config.eos_ids == std::vector<std::int32_t>{1, 106});
  CHECK(config.layers[0].window == 1024);
  // Only the full view is stretched.
  CHECK(config.ropes[0].inverse_frequency[0] == 0.125F);
  CHECK(config.ropes[1].inverse_frequency[0] == 1.0F);
}

TEST_CASE("Phi-3's long rope keeps both sets of factors, and knows where one ends") {
  std::string factors = "1.5";
  for (int i = 1; i < 36; ++i) factors += ", 2.0";
  std::string long_factors = "3.0";
  for (int i = 1; i < 36; ++i) long_factors += ", 4.0";
  for (const std::string name : {"su", "longrope"}) {
    const auto config = config_of(R"({
      "architectures": ["Phi3ForCausalLM"], "bos_token_id": 1, "eos_token_id": 32000,
      "hidden_act": "silu", "hidden_size": 3072, "intermediate_size": 8192,
      "max_position_embeddings": 131072, "model_type": "phi3", "num_attention_heads": 32,
      "num_hidden_layers": 32, "num_key_value_heads": 32,
      "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-05,
      "partial_rotary_factor": 0.75, "rope_theta": 10000.0, "sliding_window": 262144,
      "tie_word_embeddings": false, "vocab_size": 32064,
      "rope_scaling": {"type": ")" +
                                  name + R"(", "short_factor": [)" + factors +
                                  R"(], "long_factor": [)" + long_factors + "]}}");
    const auto& rope = config.ropes.at(0);
    CHECK(rope.rotary_size == 72);
    CHECK(rope.original_context == 4096);
    CHECK(rope.inverse_frequency[1] == Approx(plain_frequency(10000.0, 1, 72) / 2.0));
    CHECK(rope.long_inverse_frequency[1] == Approx(plain_frequency(10000.0, 1, 72) / 4.0));
    CHECK(rope.attention_factor == Approx(std::sqrt(1.0 + std::log(32.0) / std::log(4096.0))));
    CHECK(config.layers[0].window == 262144);
  }
}

TEST_CASE("YaRN stretches slow turns, keeps fast ones, and lengthens the context") {
  const auto config = config_of(llama_with(
      R"("rope_theta": 1000000.0, "head_dim": 128,
         "rope_scaling": {"type": "yarn", "factor": 4.0,
                          "original_max_position_embeddings": 32768})"));
  const auto& rope = config.ropes.at(0);
  CHECK(config.context_length == 131072);
  CHECK(rope.inverse_frequency[0] == 1.0F);
  CHECK(rope.inverse_frequency[63] == Approx(plain_frequency(1e6, 63, 128) / 4.0));
  CHECK(rope.attention_factor == Approx(0.1 * std::log(4.0) + 1.0));
}

TEST_CASE("the newer layout reads the same as the older one") {
  const auto older = config_of(llama_with(
      R"("rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
         "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 64})"));
  const auto newer = config_of(llama_with(
      R"("rope_parameters": {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0,
         "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 64})"));
  CHECK(older == newer);
}

TEST_CASE("attention biases are read where a family may have them") {
  const auto config = config_of(llama_with(R"("attention_bias": true)"));
  CHECK(config.qkv_bias);
  CHECK(config.output_bias);
}

TEST_CASE("what is not known or would change the arithmetic is refused with name and value") {
  CHECK_THAT(refusal(R"({"model_type":"mamba"})"),
             Contains("'mamba'") && Contains("llama, mistral, qwen2, qwen3, gemma3, phi3, "
                                             "qwen3_moe"));
  CHECK_THAT(refusal("{}"), Contains("model_type is missing"));
  CHECK_THAT(refusal("[]"), Contains("no JSON object"));
  CHECK_THAT(refusal(""), Contains("no JSON object"));
  CHECK_THAT(refusal(llama_with(R"("pad_token_id":99999999999999999999999)")),
             Contains("no JSON object"));
  CHECK_THAT(refusal(std::string(100'000, '[')), Contains("no JSON object"));
  const auto refuses = [](const std::string& fields, const std::string& name,
                          const std::string& value) {
    INFO(fields);
    CHECK_THAT(refusal(llama_with(fields)), Contains(name) && Contains(value));
  };
  refuses(R"("hidden_act":"relu")", "hidden_act", "relu");
  refuses(R"("hidden_act":"gelu")", "hidden_act", "gelu");
  refuses(R"("mlp_bias":true)", "mlp_bias", "true");
  refuses(R"("attn_logit_softcapping":50.0)", "attn_logit_softcapping", "50");
  refuses(R"("final_logit_softcapping":30.0)", "final_logit_softcapping", "30");
  refuses(R"("quantization_config":{"quant_method":"gptq"})", "quantized", "gptq");
  refuses(R"("rope_scaling":{"type":"ntk-by-parts","factor":2.0})", "scaling", "ntk-by-parts");
  refuses(R"("rope_scaling":{"type":"linear"})", "factor", "missing");
  refuses(R"("rope_scaling":{"type":"yarn","factor":4.0,"mrope_section":[1,2]})", "mrope_section",
          "pictures");
  refuses(R"("rope_scaling":{"rope_type":"llama3","factor":8.0})", "llama3",
          "original_max_position_embeddings");
  refuses(R"("rope_scaling":{"type":"longrope","short_factor":[1],"long_factor":[1]})",
          "short_factor has 1 numbers", "8");
  refuses(R"("partial_rotary_factor":0.5)", "partial_rotary_factor", "0.5");
  refuses(R"("rope_parameters":{"rope_theta":1e4,"partial_rotary_factor":0.5})",
          "partial_rotary_factor", "0.5");
  refuses(R"("residual_multiplier":0.22)", "residual_multiplier", "0.22");
  refuses(R"("head_dim":20)", "head size 20", "multiple of 8");
}

TEST_CASE("numbers that are missing, hostile or do not fit each other are refused") {
  const auto refuses = [](const std::string& key, const std::string& value) {
    std::string json = llama_with("");
    const auto at = json.find("\"" + key + "\"");
    REQUIRE(at != std::string::npos);
    const auto colon = json.find(':', at) + 1;
    const auto end = json.find_first_of(",}", colon);
    json.replace(colon, end - colon, value);
    INFO(json);
    CHECK_THAT(refusal(json), Contains(key));
  };
  for (const auto* key :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "vocab_size", "max_position_embeddings"}) {
    for (const auto* value :
         {"0", "-1", "1.5", "1e300", "9223372036854775807", "true", "\"64\"", "[1]"})
      refuses(key, value);
    if (std::string(key) != "num_key_value_heads") refuses(key, "null");
  }
  CHECK_THAT(refusal(llama_with(R"("head_dim":100000)")), Contains("head_dim"));
  CHECK_THAT(refusal(llama_with(R"("head_dim":264)")), Contains("head_dim") && Contains("256"));
  CHECK_THAT(refusal(llama_with(R"("rms_norm_eps":-1)")), Contains("rms_norm_eps"));
  CHECK_THAT(refusal(llama_with(R"("rms_norm_eps":0)")), Contains("norm epsilon"));
  CHECK_THAT(refusal(llama_with(R"("rope_theta":0)")), Contains("rope_theta"));
  CHECK_THAT(refusal(llama_with(R"("eos_token_id":"</s>")")), Contains("eos_token_id"));
  CHECK_THAT(refusal(R"({"model_type":"llama","hidden_size":64,"intermediate_size":96,
      "num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":3,"vocab_size":320,
      "max_position_embeddings":512})"),
             Contains("4 query heads cannot share 3 key heads"));
  CHECK_THAT(refusal(R"({"model_type":"llama","hidden_size":66,"intermediate_size":96,
      "num_hidden_layers":2,"num_attention_heads":4,"vocab_size":320,
      "max_position_embeddings":512})"),
             Contains("no multiple of 4 heads"));
}

TEST_CASE("Granite's residual multiplier goes into the embedding's scale and the norms' epsilon") {
  const auto config = *config_from_json(R"({"model_type":"granite","hidden_size":64,
      "intermediate_size":96,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,
      "vocab_size":320,"max_position_embeddings":512,"rms_norm_eps":1e-5,"embedding_multiplier":12,
      "residual_multiplier":0.25,"attention_multiplier":0.015625,"logits_scaling":8})");
  CHECK(config.embedding_scale == 48.0F);
  CHECK(config.norm_eps == Approx(16e-5));
  CHECK(config.attention_scale == 0.015625F);
  CHECK(config.logit_scale == 0.125F);
}

TEST_CASE("Gemma 2's caps are there unless they are null, and every second layer has a window") {
  const auto gemma2 = [](const std::string& more) {
    return *config_from_json(R"({"model_type":"gemma2","hidden_size":64,"intermediate_size":96,
        "num_hidden_layers":4,"num_attention_heads":4,"num_key_value_heads":2,"vocab_size":320,
        "max_position_embeddings":512,"head_dim":16,"sliding_window":8)" +
                             more + "}");
  };
  const auto usual = gemma2("");
  CHECK(usual.attention_softcap == 50.0F);
  CHECK(usual.logit_softcap == 30.0F);
  CHECK(windows_of(usual) == std::vector{8, 0, 8, 0});
  CHECK(usual.ropes.size() == 1);
  const auto off = gemma2(R"(,"attn_logit_softcapping":null,"final_logit_softcapping":null)");
  CHECK(off.attention_softcap == 0.0F);
  CHECK(off.logit_softcap == 0.0F);
}

TEST_CASE("SmolLM3 says layer by layer where nothing turns; without a list it is every fourth") {
  const auto turned = [](const std::string& more) {
    const auto config = *config_from_json(R"({"model_type":"smollm3","hidden_size":64,
        "intermediate_size":96,"num_hidden_layers":5,"num_attention_heads":4,
        "num_key_value_heads":2,"vocab_size":320,"max_position_embeddings":512)" +
                                          more + "}");
    std::vector<bool> turns;
    for (const auto& layer : config.layers)
      turns.push_back(config.ropes[static_cast<std::size_t>(layer.rope)].inverse_frequency[0] > 0);
    return turns;
  };
  CHECK(turned("") == std::vector{true, true, true, false, true});
  CHECK(turned(R"(,"no_rope_layers":[0,1,1,0,0])") == std::vector{false, true, true, false, false});
  CHECK(turned(R"(,"no_rope_layer_interval":2)") == std::vector{true, false, true, false, true});
}

TEST_CASE("EXAONE 4 with windows turns nothing where it sees everything") {
  const auto ropes = [](const std::string& more) {
    const auto config = *config_from_json(R"({"model_type":"exaone4","hidden_size":64,
        "intermediate_size":96,"num_hidden_layers":4,"num_attention_heads":4,
        "num_key_value_heads":2,"vocab_size":320,"max_position_embeddings":512)" +
                                          more + "}");
    std::vector<int> of_layers;
    for (const auto& layer : config.layers) of_layers.push_back(layer.rope);
    return std::pair(of_layers, windows_of(config));
  };
  CHECK(ropes(R"(,"sliding_window":8,"sliding_window_pattern":"LLLG")") ==
        std::pair(std::vector{0, 0, 0, 1}, std::vector{8, 8, 8, 0}));
  CHECK(ropes(R"(,"sliding_window":null)") ==
        std::pair(std::vector{0, 0, 0, 0}, std::vector{0, 0, 0, 0}));
}

TEST_CASE("Mistral 3 with pictures keeps a Mistral inside") {
  const auto config = config_from_json(R"({"model_type":"mistral3","vision_config":{},"text_config":
      {"model_type":"mistral","hidden_size":64,"intermediate_size":96,"num_hidden_layers":2,
       "num_attention_heads":4,"num_key_value_heads":2,"vocab_size":320,"head_dim":16,
       "max_position_embeddings":512,"sliding_window":null}})");
  REQUIRE(config);
  CHECK(config->family == "mistral");
}

TEST_CASE("layer types are read by name") {
  const std::string qwen = R"({"model_type":"qwen2","hidden_size":64,"intermediate_size":96,
    "num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"vocab_size":320,
    "max_position_embeddings":512,"use_sliding_window":true,)";
  CHECK(
      windows_of(config_of(
          qwen + R"("sliding_window":8,"layer_types":["sliding_attention","full_attention"]})")) ==
      std::vector<int>{8, 0});
  CHECK_THAT(refusal(qwen + R"("sliding_window":8,"layer_types":["full_attention"]})"),
             Contains("1 layers of 2"));
  CHECK_THAT(
      refusal(qwen + R"("sliding_window":8,"layer_types":["linear_attention","full_attention"]})"),
      Contains("'linear_attention'"));
  CHECK_THAT(refusal(qwen + R"("layer_types":["sliding_attention","full_attention"]})"),
             Contains("layer 0 has a window"));
}

TEST_CASE("generation_config.json gives a model's own sampling, and only what it sets") {
  const auto defaults = generation_defaults_from_json(R"({
    "bos_token_id": 151643, "do_sample": true, "eos_token_id": [151645, 151643],
    "repetition_penalty": 1.1, "temperature": 0.7, "top_k": 20, "top_p": 0.8,
    "transformers_version": "4.37.0"})");
  REQUIRE(defaults);
  CHECK(defaults->temperature == 0.7F);
  CHECK(defaults->top_p == 0.8F);
  CHECK(defaults->top_k == 20);
  CHECK(defaults->repetition_penalty == 1.1F);
  CHECK_FALSE(defaults->min_p);
  CHECK(defaults->eos_ids == std::vector<std::int32_t>{151645, 151643});

  const auto empty = generation_defaults_from_json("{}");
  REQUIRE(empty);
  CHECK(*empty == generation_defaults{});

  const auto broken = generation_defaults_from_json(R"({"temperature": "warm"})");
  REQUIRE_FALSE(broken);
  CHECK_THAT(broken.error().detail, Contains("temperature") && Contains("warm"));
}
