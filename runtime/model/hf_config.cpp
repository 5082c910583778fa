#include "runtime/model/hf_config.hpp"

#include "runtime/model/families.hpp"
#include "runtime/model/rope.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>
#include <utility>

namespace tandem::model {
namespace {

using text::value;

constexpr double rounding = 1e-5;  // of frequencies, relative
constexpr int product_digits = 6;  // that a product of two floats keeps

bool near(double one, double other) {
  return std::fabs(one - other) <= rounding * std::max(std::fabs(one), std::fabs(other));
}

bool near(const std::vector<float>& one, const std::vector<float>& other) {
  return std::equal(one.begin(), one.end(), other.begin(), other.end(),
                    [](float a, float b) { return near(double{a}, double{b}); });
}

value list_of(const std::vector<double>& numbers) {
  value::array list;
  for (const double number : numbers) list.emplace_back(number);
  return list;
}

value ids_of(const std::vector<std::int32_t>& ids) {
  if (ids.empty()) return nullptr;
  if (ids.size() == 1) return std::int64_t{ids.front()};
  value::array list;
  for (const auto id : ids) list.emplace_back(std::int64_t{id});
  return list;
}

// The parameters that Llama 3's scaling has if its factors are these. A GGUF file keeps the factors
// alone. Between the two wavelengths the share kept of a frequency is linear in it:
// s = (original / wavelength - low) / (high - low), and 1 / f = (1 - s) / factor + s. Only ratios
// of original, low and high matter, so low is 1 as it has always been.
rope_parameters llama3_from(const rope_parameters& p, int rotary_size) {
  rope_parameters out = p;
  out.type = "llama3";
  out.frequency_factor.clear();
  out.factor = *std::max_element(p.frequency_factor.begin(), p.frequency_factor.end());
  out.low_freq_factor = 1.0;
  out.high_freq_factor = 4.0;
  out.original_context = 8192;
  struct point {
    double inverse_wavelength = 0.0;
    double share = 0.0;
  };
  std::vector<point> ramp;
  for (std::size_t i = 0; i < p.frequency_factor.size(); ++i) {
    const double frequency = std::pow(p.theta, -2.0 * static_cast<double>(i) / rotary_size);
    const double slowest = 1.0 / out.factor;
    const double share = (1.0 / p.frequency_factor[i] - slowest) / (1.0 - slowest);
    if (share > 1e-3 && share < 1.0 - 1e-3)
      ramp.push_back({frequency / (2.0 * std::numbers::pi), share});
  }
  if (ramp.empty()) return out;
  if (ramp.size() == 1) {  // one equation: with the 4 that high has always been
    const double width = out.high_freq_factor - out.low_freq_factor;
    out.original_context = static_cast<std::int64_t>(
        std::llround((ramp[0].share * width + out.low_freq_factor) / ramp[0].inverse_wavelength));
    return out;
  }
  const double slope = (ramp.front().share - ramp.back().share) /
                       (ramp.front().inverse_wavelength - ramp.back().inverse_wavelength);
  const double intercept = ramp.front().share - slope * ramp.front().inverse_wavelength;
  if (!(intercept < 0.0)) return out;
  out.high_freq_factor = std::round((1.0 - 1.0 / intercept) * 1000.0) / 1000.0;
  out.original_context =
      static_cast<std::int64_t>(std::llround(slope * (out.high_freq_factor - 1.0)));
  return out;
}

value rope_scaling_of(const rope_parameters& p) {
  if (p.type == "linear") return value::object{{"rope_type", "linear"}, {"factor", p.factor}};
  if (p.type == "llama3")
    return value::object{{"rope_type", "llama3"},
                         {"factor", p.factor},
                         {"low_freq_factor", p.low_freq_factor},
                         {"high_freq_factor", p.high_freq_factor},
                         {"original_max_position_embeddings", p.original_context}};
  value scaling = value::object{{"rope_type", p.type}, {"factor", p.factor}};
  if (p.type == "yarn") scaling.set("original_max_position_embeddings", p.original_context);
  if (p.type == "longrope") {
    scaling.set("short_factor", list_of(p.short_factor));
    scaling.set("long_factor", list_of(p.long_factor));
  }
  if (p.attention_factor) scaling.set("attention_factor", *p.attention_factor);
  return scaling;
}

void put_rope(value& json, const model_config& config, rope_parameters p, double local_theta) {
  const auto& rope = config.ropes.front();
  if (!p.frequency_factor.empty() && p.type == "default") p = llama3_from(p, rope.rotary_size);
  json.set("rope_theta", p.theta);
  json.set("rope_scaling", p.type == "default" ? value() : rope_scaling_of(p));
  // Gemma 3's windowed layers turn by angles of their own.
  if (config.family == "gemma3") json.set("rope_local_base_freq", local_theta);
  if (p.type == "longrope") json.set("original_max_position_embeddings", p.original_context);
  if (rope.rotary_size != config.head_size)
    json.set("partial_rotary_factor", static_cast<double>(rope.rotary_size) / config.head_size);
}

void put_windows(value& json, const model_config& config) {
  const bool on_every_layer =
      config.family == "mistral" || config.family == "mixtral" || config.family == "phi3";
  const auto windowed = [](const layer_config& layer) { return layer.window > 0; };
  const auto first = std::find_if(config.layers.begin(), config.layers.end(), windowed);
  if (first == config.layers.end()) {
    if (on_every_layer) json.set("sliding_window", nullptr);
    return;
  }
  json.set("sliding_window", std::int64_t{first->window});
  if (on_every_layer) return;
  if (!config.post_norms) json.set("use_sliding_window", true);
  if (!config.post_norms)
    json.set("max_window_layers", static_cast<std::int64_t>(first - config.layers.begin()));
  value::array types;
  for (const auto& layer : config.layers)
    types.emplace_back(windowed(layer) ? "sliding_attention" : "full_attention");
  json.set("layer_types", std::move(types));
}

void put_experts(value& json, const model_config& config) {
  if (config.experts == 0) return;
  if (config.family == "mixtral") {
    json.set("num_local_experts", std::int64_t{config.experts});
    json.set("num_experts_per_tok", std::int64_t{config.experts_per_token});
    return;
  }
  json.set("num_experts", std::int64_t{config.experts});
  json.set("num_experts_per_tok", std::int64_t{config.experts_per_token});
  json.set("moe_intermediate_size", config.expert_hidden_size);
  json.set("norm_topk_prob", config.normalize_expert_weights);
  json.set("decoder_sparse_step", 1);
  value::array dense;
  for (std::size_t i = 0; i < config.layers.size(); ++i)
    if (!config.layers[i].moe) dense.emplace_back(static_cast<std::int64_t>(i));
  json.set("mlp_only_layers", std::move(dense));
}

// A float that was a decimal in some file, as that decimal.
double decimal_of(float number, int digits = 9) {
  // What was divided and multiplied again is a bit off.
  const std::string text =
      digits < 9 ? fmt::format("{:.{}g}", number, digits) : fmt::format("{}", number);
  double decimal = number;
  std::from_chars(text.data(), text.data() + text.size(), decimal);
  return decimal;
}

// What only some families have: soft caps, multipliers, layers that turn nothing.
void put_scales(value& json, const model_config& config) {
  if (config.family == "gemma2") {
    const auto cap = [](float number) {
      return number == 0.0F ? value() : value(decimal_of(number));
    };
    json.set("attn_logit_softcapping", cap(config.attention_softcap));
    json.set("final_logit_softcapping", cap(config.logit_softcap));
  }
  if (config.family == "granite") {
    const auto m = multipliers_of(config);
    const auto put = [&](const char* key, float number) {
      json.set(key, decimal_of(number, product_digits));
    };
    put("embedding_multiplier", m.embedding);
    put("residual_multiplier", m.residual);
    put("attention_multiplier", m.attention);
    put("logits_scaling", m.logits);
  }
  if (config.family == "smollm3") {
    value::array turned;
    for (const auto& layer : config.layers) turned.emplace_back(std::int64_t{layer.rope == 0});
    json.set("no_rope_layers", std::move(turned));
  }
}

std::string_view class_of(std::string_view family) {
  if (family == "mistral") return "MistralForCausalLM";
  if (family == "qwen2") return "Qwen2ForCausalLM";
  if (family == "qwen3") return "Qwen3ForCausalLM";
  if (family == "qwen3_moe") return "Qwen3MoeForCausalLM";
  if (family == "gemma3") return "Gemma3ForCausalLM";
  if (family == "gemma2") return "Gemma2ForCausalLM";
  if (family == "gemma") return "GemmaForCausalLM";
  if (family == "phi3") return "Phi3ForCausalLM";
  if (family == "mixtral") return "MixtralForCausalLM";
  if (family == "smollm3") return "SmolLM3ForCausalLM";
  if (family == "granite") return "GraniteForCausalLM";
  if (family == "olmo2") return "Olmo2ForCausalLM";
  if (family == "olmo3") return "Olmo3ForCausalLM";
  if (family == "exaone4") return "Exaone4ForCausalLM";
  if (family == "seed_oss") return "SeedOssForCausalLM";
  return "LlamaForCausalLM";
}

// Mistral's GGUF files call themselves llama; only its windows tell.
std::string family_of(const model_config& config) {
  if (config.family == "mixtral") return config.family;
  const bool windows = std::any_of(config.layers.begin(), config.layers.end(),
                                   [](const auto& layer) { return layer.window > 0; });
  return config.family == "llama" && windows ? "mistral" : config.family;
}

value describe(const model_config& config, std::string_view dtype) {
  const bool gemma = stores_norms_minus_one(config.family);
  std::string_view type = config.family;
  for (const auto& family : known_families())
    if (family.name == config.family) type = family.model_type;
  value json = value::object{
      {"architectures", value::array{std::string(class_of(config.family))}},
      {"model_type", std::string(type)},
      {"torch_dtype", std::string(dtype)},
      {"hidden_size", config.model_size},
      {"intermediate_size", config.hidden_size},
      {"num_hidden_layers", static_cast<std::int64_t>(config.layers.size())},
      {"num_attention_heads", std::int64_t{config.query_heads}},
      {"num_key_value_heads", std::int64_t{config.key_heads}},
      {"head_dim", std::int64_t{config.head_size}},
      {"vocab_size", config.vocabulary_size},
      {"max_position_embeddings", config.context_length},
      {"rms_norm_eps", static_cast<double>(config.norm_eps)},
      {gemma ? "hidden_activation" : "hidden_act", gemma ? "gelu_pytorch_tanh" : "silu"},
      {"tie_word_embeddings", config.tied_head},
      {"attention_dropout", 0.0},
      {"initializer_range", 0.02},
      {"use_cache", true}};
  if (config.family != "qwen2") json.set("attention_bias", config.qkv_bias);
  if (config.family == "seed_oss") json.set("attention_out_bias", config.output_bias);
  if (gemma && config.post_norms)
    json.set("query_pre_attn_scalar",
             static_cast<std::int64_t>(
                 std::llround(1.0 / (double{config.attention_scale} * config.attention_scale))));
  if (config.bos_id) json.set("bos_token_id", std::int64_t{*config.bos_id});
  json.set("eos_token_id", ids_of(config.eos_ids));
  put_experts(json, config);
  put_windows(json, config);
  put_scales(json, config);
  return json;
}

}  // namespace

std::string difference_of(const model_config& one, const model_config& other) {
  const auto sizes = [](const model_config& c) {
    return std::vector<std::pair<const char*, std::int64_t>>{
        {"the model size", c.model_size},
        {"the feed-forward size", c.hidden_size},
        {"the vocabulary", c.vocabulary_size},
        {"the query heads", c.query_heads},
        {"the key heads", c.key_heads},
        {"the head size", c.head_size},
        {"the activation", static_cast<std::int64_t>(c.activation)},
        {"the post-norms", c.post_norms},
        {"the norms in front", c.pre_norms},
        {"the head norms", c.head_norms},
        {"the norms over all heads", c.wide_norms},
        {"the tied head", c.tied_head},
        {"the biases of queries, keys and values", c.qkv_bias},
        {"the output bias", c.output_bias},
        {"the experts", c.experts},
        {"the experts of a token", c.experts_per_token},
        {"the size of experts", c.expert_hidden_size},
        {"the normalized expert weights", c.experts > 0 && c.normalize_expert_weights},
        {"the layers", static_cast<std::int64_t>(c.layers.size())},
        {"the ropes", static_cast<std::int64_t>(c.ropes.size())}};
  };
  const auto mine = sizes(one);
  const auto theirs = sizes(other);
  for (std::size_t i = 0; i < mine.size(); ++i)
    if (mine[i].second != theirs[i].second)
      return fmt::format("{} ({} and {})", mine[i].first, mine[i].second, theirs[i].second);
  if (!near(one.norm_eps, other.norm_eps)) return "the epsilon of norms";
  if (!near(one.attention_scale, other.attention_scale)) return "the scale of attention scores";
  if (!near(one.embedding_scale, other.embedding_scale)) return "the scale of embeddings";
  if (!near(one.logit_scale, other.logit_scale)) return "the scale of logits";
  if (!near(one.attention_softcap, other.attention_softcap)) return "the soft cap of scores";
  if (!near(one.logit_softcap, other.logit_softcap)) return "the soft cap of logits";
  for (std::size_t i = 0; i < one.ropes.size(); ++i) {
    const auto& a = one.ropes[i];
    const auto& b = other.ropes[i];
    const bool longer = !a.long_inverse_frequency.empty();
    if (a.rotary_size != b.rotary_size || !near(a.inverse_frequency, b.inverse_frequency) ||
        !near(a.attention_factor, b.attention_factor) ||
        !near(a.long_inverse_frequency, b.long_inverse_frequency) ||
        (longer && a.original_context != b.original_context))
      return fmt::format("the frequencies of rope {}", i);
  }
  for (std::size_t i = 0; i < one.layers.size(); ++i) {
    if (one.layers[i].window != other.layers[i].window)
      return fmt::format("the window of layer {}", i);
    if (one.layers[i].moe != other.layers[i].moe) return fmt::format("the experts of layer {}", i);
    if (one.layers[i].rope != other.layers[i].rope) return fmt::format("the rope of layer {}", i);
  }
  return {};
}

result<value> hf_config_from_gguf(const formats::gguf_file& file, std::string_view dtype) {
  auto config = config_from_gguf(file);
  if (!config) return config.error();
  const auto rope = rope_from_gguf(file);
  if (!rope) return rope.error();
  config->family = family_of(*config);
  value json = describe(*config, dtype);
  json.set("rms_norm_eps",
           config->family == "granite"
               ? decimal_of(static_cast<float>(file_norm_eps(*config)), product_digits)
               : decimal_of(config->norm_eps));
  put_rope(json, *config, *rope, file.number("gemma3.rope.freq_base_swa").value_or(10000.0));
  const auto pad = file.integer("tokenizer.ggml.padding_token_id");
  const bool has_pad = pad && *pad >= 0 && *pad < config->vocabulary_size;
  json.set("pad_token_id", has_pad ? value(*pad) : value());

  const auto read_back = config_from_json(json.to_json());
  if (!read_back) return read_back.error();
  if (const auto what = difference_of(*config, *read_back); !what.empty())
    return error{errc::unsupported,
                 fmt::format("Hugging Face's config.json of a {} model cannot say {} of this GGUF "
                             "file; export it with --gguf",
                             config->family, what),
                 {}};
  return json;
}

result<value> hf_config_from_json(std::string_view config_json, std::string_view dtype) {
  auto json = value::from_json(config_json);
  if (!json) return error{errc::bad_file, "config.json: " + json.error().detail, {}};
  if (const value* inner = json->find("text_config"); inner && inner->if_object()) {
    value text = *inner;
    const value* const outer_type = json->find("model_type");
    const bool mistral =
        outer_type && outer_type->if_string() && *outer_type->if_string() == "mistral3";
    text.set("model_type", mistral ? "mistral" : "gemma3_text");
    text.set("architectures", value::array{mistral ? "MistralForCausalLM" : "Gemma3ForCausalLM"});
    for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"})
      if (const value* outer = json->find(key); outer && !text.find(key)) text.set(key, *outer);
    *json = std::move(text);
  }
  json->set(json->find("dtype") ? "dtype" : "torch_dtype", std::string(dtype));
  return json;
}

value hf_generation_config(const model_config& config) {
  value json = value::object{{"_from_model_config", true}};
  if (config.bos_id) json.set("bos_token_id", std::int64_t{*config.bos_id});
  if (!config.eos_ids.empty()) json.set("eos_token_id", ids_of(config.eos_ids));
  return json;
}

}  // namespace tandem::model
