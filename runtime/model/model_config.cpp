// config.json and generation_config.json, in Hugging Face's older and newer layouts. Whatever
// changes the arithmetic and is not built here is refused with its name and value.
#include "runtime/model/model_config.hpp"

#include "runtime/model/families.hpp"
#include "runtime/model/fields.hpp"
#include "runtime/model/hf_layers.hpp"
#include "runtime/model/rope.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace tandem::model {

namespace {

constexpr double any_number = 1e12;

const family_traits* family_of(std::string_view model_type) {
  for (const auto& family : known_families())
    if (family.model_type == model_type) return &family;
  return nullptr;
}

// Reads one config.json whose family is known.
class config_reader {
 public:
  config_reader(const family_traits& family, fields text, fields outer)
      : family_(family), text_(std::move(text)), outer_(std::move(outer)) {}

  result<model_config> read() {
    config_.family = family_.name;
    refuse_unsupported();
    read_sizes();
    read_experts();
    read_tokens();
    if (const auto failed = failure()) return *failed;
    if (auto good = read_ropes(); !good) return good.error();
    read_layers(text_, family_, config_);
    if (const auto failed = failure()) return *failed;
    return checked(std::move(config_), "config.json");
  }
  // Of the ropes that `read` made.
  const std::vector<rope_parameters>& ropes() const { return ropes_; }

 private:
  void refuse_unsupported();
  void read_sizes();
  void read_softcaps();
  void read_multipliers();
  void read_experts();
  void read_tokens();
  result<void> read_ropes();
  result<void> add_rope(std::optional<fields> scaling, double theta);

  std::optional<error> failure() {
    text_.adopt(outer_);
    return text_.failure();
  }
  void unsupported(std::string_view key) {
    text_.refuse(errc::unsupported,
                 fmt::format("{} = {} changes the model's arithmetic and is not supported for {}",
                             key, text_.spelled(key), family_.name));
  }

  const family_traits& family_;
  fields text_;   // the text model's own object
  fields outer_;  // the file's; the same but in multimodal configs
  model_config config_;
  std::vector<rope_parameters> ropes_;
};

void config_reader::refuse_unsupported() {
  for (const auto* key : {"attn_logit_softcapping", "final_logit_softcapping"})
    if (!family_.softcaps && text_.number(key, 0.0, -any_number, any_number) != 0.0)
      unsupported(key);
  for (const auto* key :
       {"embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling"})
    if (!family_.multipliers && text_.number(key, 1.0, -any_number, any_number) != 1.0)
      unsupported(key);
  for (const auto* key : {"mlp_bias", "use_bidirectional_attention", "use_mrope"})
    if (text_.boolean(key, false)) unsupported(key);
  if (text_.boolean("attention_bias", false) && !family_.may_have_bias && !family_.qkv_bias)
    unsupported("attention_bias");
  const char* const activation_key =
      family_.gemma && (family_.post_norms || text_.has("hidden_activation")) ? "hidden_activation"
                                                                              : "hidden_act";
  const auto activation = text_.find_string(activation_key);
  // The first Gemma's files say gelu and mean its approximation by tanh.
  const bool known =
      !activation ||
      (family_.gemma ? *activation == "gelu_pytorch_tanh" || *activation == "gelu_new" ||
                           (!family_.post_norms && *activation == "gelu")
                     : *activation == "silu" || *activation == "swish");
  if (!known) unsupported(activation_key);
  if (outer_.has("quantization_config"))
    outer_.refuse(errc::unsupported,
                  fmt::format("the weights are quantized in a way that cannot be read here ({}); "
                              "use the unquantized repository or a GGUF file",
                              outer_.spelled("quantization_config")));
}

void config_reader::read_sizes() {
  const bool gemma =
      family_.gemma && family_.local_rope;  // its published text_config leaves defaults out
  const auto size = [&](std::string_view key, std::int64_t gemma_default, std::int64_t most) {
    return gemma ? text_.integer(key, gemma_default, 1, most)
                 : text_.required_integer(key, 1, most);
  };
  config_.model_size = size("hidden_size", 2304, bounds::model_size);
  config_.hidden_size = size("intermediate_size", 9216, bounds::hidden_size);
  config_.vocabulary_size = size("vocab_size", 262208, bounds::vocabulary_size);
  config_.query_heads = static_cast<int>(size("num_attention_heads", 8, bounds::heads));
  config_.key_heads = static_cast<int>(
      text_.integer("num_key_value_heads", gemma ? 4 : config_.query_heads, 1, bounds::heads));
  config_.context_length = size("max_position_embeddings", 131072, bounds::context_length);
  config_.layers.resize(static_cast<std::size_t>(size("num_hidden_layers", 26, bounds::layers)));

  std::int64_t head_size = config_.model_size / config_.query_heads;
  if (family_.gemma) head_size = 256;
  if (family_.name == "qwen3") head_size = 128;
  if (!text_.has("head_dim") && !family_.gemma && family_.name != "qwen3" &&
      config_.model_size % config_.query_heads != 0)
    text_.refuse(errc::bad_file, fmt::format("hidden_size {} is no multiple of {} heads, and "
                                             "head_dim is missing",
                                             config_.model_size, config_.query_heads));
  config_.head_size = static_cast<int>(text_.integer("head_dim", head_size, 1, bounds::head_size));
  config_.norm_eps = static_cast<float>(text_.number("rms_norm_eps", family_.norm_eps, 0.0, 1.0));

  config_.activation = family_.activation;
  config_.head_norms = family_.head_norms;
  config_.norm_weight_plus_one = family_.gemma;
  config_.post_norms = family_.post_norms;
  config_.pre_norms = family_.pre_norms;
  config_.wide_norms = family_.wide_norms;
  double score_scale = config_.head_size;
  if (family_.gemma) config_.embedding_scale = std::sqrt(static_cast<float>(config_.model_size));
  if (family_.gemma && family_.post_norms)
    score_scale = text_.number("query_pre_attn_scalar", 256.0, 1e-3, any_number);
  config_.attention_scale = static_cast<float>(1.0 / std::sqrt(score_scale));
  if (family_.softcaps) read_softcaps();
  if (family_.multipliers) read_multipliers();

  const bool seed = family_.name == "seed_oss";
  const bool attention_bias = text_.boolean("attention_bias", seed) && family_.may_have_bias;
  config_.qkv_bias = family_.qkv_bias || attention_bias;
  config_.output_bias = seed ? text_.boolean("attention_out_bias", false) : attention_bias;
  const auto tied = outer_.find_boolean("tie_word_embeddings");
  config_.tied_head = tied.value_or(text_.boolean("tie_word_embeddings", family_.tied_by_default));
}

// null turns a cap off.
void config_reader::read_softcaps() {
  const auto cap = [&](std::string_view key, double otherwise) {
    const double value = text_.number(key, otherwise, 0.0, any_number);
    return text_.is_null(key) ? 0.0F : static_cast<float>(value);
  };
  config_.attention_softcap = cap("attn_logit_softcapping", 50.0);
  config_.logit_softcap = cap("final_logit_softcapping", 30.0);
}

void config_reader::read_multipliers() {
  const auto multiplier = [&](std::string_view key) {
    return static_cast<float>(text_.number(key, 1.0, 1e-6, 1e6));
  };
  set_multipliers(config_, {.embedding = multiplier("embedding_multiplier"),
                            .residual = multiplier("residual_multiplier"),
                            .attention = multiplier("attention_multiplier"),
                            .logits = multiplier("logits_scaling")});
}

void config_reader::read_experts() {
  if (!family_.moe) return;
  const auto* count_key = text_.has("num_experts") ? "num_experts" : "num_local_experts";
  config_.experts = static_cast<int>(text_.required_integer(count_key, 1, bounds::experts));
  config_.experts_per_token =
      static_cast<int>(text_.required_integer("num_experts_per_tok", 1, bounds::experts));
  if (family_.name == "mixtral") {  // every layer, and nothing else to say
    config_.expert_hidden_size = config_.hidden_size;
    for (auto& layer : config_.layers) layer.moe = true;
    return;
  }
  config_.expert_hidden_size =
      text_.required_integer("moe_intermediate_size", 1, bounds::hidden_size);
  config_.normalize_expert_weights = text_.boolean("norm_topk_prob", false);
  const auto step = text_.integer("decoder_sparse_step", 1, 1, bounds::layers);
  const auto dense = text_.integers("mlp_only_layers", 0, bounds::layers);
  for (std::size_t i = 0; i < config_.layers.size(); ++i) {
    const auto number = static_cast<std::int64_t>(i);
    config_.layers[i].moe =
        (number + 1) % step == 0 && std::find(dense.begin(), dense.end(), number) == dense.end();
  }
}

void config_reader::read_tokens() {
  auto& from = outer_.has("eos_token_id") ? outer_ : text_;
  for (const std::int64_t id : from.one_or_more("eos_token_id", -1, bounds::token_id))
    if (id >= 0) config_.eos_ids.push_back(static_cast<std::int32_t>(id));
  auto& bos_from = outer_.has("bos_token_id") ? outer_ : text_;
  const auto bos = bos_from.find_integer("bos_token_id", -1, bounds::token_id);
  if (bos && *bos >= 0) config_.bos_id = static_cast<std::int32_t>(*bos);
}

// Index 0 is what full-attention layers use; Gemma 3's windowed layers have index 1, and so have
// SmolLM3's that turn nothing.
result<void> config_reader::read_ropes() {
  const double theta = text_.number("rope_theta", family_.theta, 1.0, any_number);
  const double local_theta =
      family_.gemma ? text_.number("rope_local_base_freq", 10000.0, 1.0, any_number) : theta;
  auto newer = text_.find_object("rope_parameters");
  if (newer && newer->has("full_attention")) {
    if (auto good = add_rope(newer->find_object("full_attention"), theta); !good) return good;
    if (!newer->has("sliding_attention")) return {};
    return add_rope(newer->find_object("sliding_attention"), local_theta);
  }
  if (auto good = add_rope(newer ? std::move(newer) : text_.find_object("rope_scaling"), theta);
      !good)
    return good;
  if (family_.local_rope) return add_rope(std::nullopt, local_theta);
  if (family_.skips_rope || family_.name == "exaone4")
    config_.ropes.push_back(no_rope(config_.ropes.front().rotary_size));
  return {};
}

result<void> config_reader::add_rope(std::optional<fields> scaling, double theta) {
  rope_parameters p;
  p.theta = theta;
  const auto length = config_.context_length;
  const double share = text_.number("partial_rotary_factor", 1.0, 0.0, 1.0);
  if (!family_.partial_rotary && share != 1.0) unsupported("partial_rotary_factor");
  double turned = share;
  if (scaling) {
    auto& s = *scaling;
    p.type = s.find_string(s.has("rope_type") ? "rope_type" : "type").value_or("default");
    if (p.type == "su") p.type = "longrope";  // Phi-3's first name for it
    p.theta = s.number("rope_theta", theta, 1.0, any_number);
    p.original_context =
        s.integer("original_max_position_embeddings",
                  text_.integer("original_max_position_embeddings", p.type == "llama3" ? 0 : length,
                                1, bounds::context_length),
                  1, bounds::context_length);
    const double ratio = p.original_context > 0
                             ? static_cast<double>(length) / static_cast<double>(p.original_context)
                             : 1.0;
    if (!s.has("factor") && (p.type == "linear" || p.type == "llama3" || p.type == "yarn"))
      s.refuse(errc::bad_file, "factor is missing");
    p.factor = s.number("factor", p.type == "longrope" ? ratio : 1.0, 1e-3, 1e6);
    p.attention_factor = s.find_number("attention_factor", 1e-3, 1e3);
    p.low_freq_factor = s.number("low_freq_factor", 1.0, 1e-6, 1e6);
    p.high_freq_factor = s.number("high_freq_factor", 4.0, 1e-6, 1e6);
    p.beta_fast = s.number("beta_fast", 32.0, 1e-6, 1e6);
    p.beta_slow = s.number("beta_slow", 1.0, 1e-6, 1e6);
    p.mscale = s.number("mscale", 0.0, 0.0, 1e3);
    p.mscale_all_dim = s.number("mscale_all_dim", 0.0, 0.0, 1e3);
    p.truncate = s.boolean("truncate", true);
    p.short_factor = s.numbers("short_factor", 1e-6, 1e9);
    p.long_factor = s.numbers("long_factor", 1e-6, 1e9);
    turned = s.number("partial_rotary_factor", share, 0.0, 1.0);
    if (!family_.partial_rotary && turned != 1.0)
      s.refuse(errc::unsupported, fmt::format("partial_rotary_factor = {} is not supported for {}",
                                              turned, family_.name));
    if (s.has("mrope_section"))
      s.refuse(errc::unsupported, "mrope_section: positions in pictures are not supported");
    text_.adopt(s);
  }
  if (const auto failed = failure()) return *failed;
  auto rope = make_rope(p, static_cast<int>(config_.head_size * turned));
  if (!rope) {
    error why = rope.error();
    why.detail = "config.json: " + why.detail;
    return why;
  }
  if (p.type == "yarn")
    config_.context_length = std::min(
        bounds::context_length,
        std::max(length,
                 static_cast<std::int64_t>(static_cast<double>(p.original_context) * p.factor)));
  config_.ropes.push_back(std::move(*rope));
  ropes_.push_back(std::move(p));
  return {};
}

// Parses `text` and hands its object to `read`; the document lives for the length of the call.
template <class Read>
auto with_object(std::string_view text, std::string_view name, Read read)
    -> decltype(read(std::declval<fields>())) {
  simdjson::dom::parser parser;
  const simdjson::padded_string padded(text);
  simdjson::dom::object object;
  if (const auto status = parser.parse(padded).get(object); status != simdjson::SUCCESS)
    return error{errc::bad_file,
                 fmt::format("{} is no JSON object: {}", name, simdjson::error_message(status)),
                 {}};
  return read(fields(object, std::string(name)));
}

// Hands the reader of a known family to `read`.
template <class T, class Read>
result<T> with_config(std::string_view config_json, Read read) {
  return with_object(config_json, "config.json", [&](fields outer) -> result<T> {
    auto inner = outer.find_object("text_config");
    auto type = outer.find_string("model_type");
    // With pictures the text model's config stands in the other's. Gemma's does not always say what
    // it is.
    if (inner && type == "gemma3") type = "gemma3_text";
    if (inner && type == "mistral3") type = inner->find_string("model_type").value_or("mistral");
    if (outer.failure()) return *outer.failure();
    if (!type)
      return error{errc::bad_file, "config.json: model_type is missing; which model is this?", {}};
    const auto* family = family_of(*type);
    if (family == nullptr)
      return error{errc::unsupported,
                   fmt::format("config.json: the architecture '{}' is not known ({} are)", *type,
                               family_names()),
                   {}};
    fields text = inner ? std::move(*inner) : outer;
    return read(config_reader(*family, std::move(text), std::move(outer)));
  });
}

}  // namespace

result<model_config> config_from_json(std::string_view config_json) {
  return with_config<model_config>(config_json, [](config_reader reader) { return reader.read(); });
}

result<std::vector<rope_parameters>> ropes_from_json(std::string_view config_json) {
  using ropes = std::vector<rope_parameters>;
  return with_config<ropes>(config_json, [](config_reader reader) -> result<ropes> {
    if (const auto config = reader.read(); !config) return config.error();
    return reader.ropes();
  });
}

result<generation_defaults> generation_defaults_from_json(std::string_view json) {
  return with_object(json, "generation_config.json", [](fields f) -> result<generation_defaults> {
    const auto as_float = [](std::optional<double> number) -> std::optional<float> {
      if (!number) return std::nullopt;
      return static_cast<float>(*number);
    };
    generation_defaults defaults;
    defaults.temperature = as_float(f.find_number("temperature", 0.0, 100.0));
    defaults.top_p = as_float(f.find_number("top_p", 0.0, 1.0));
    if (const auto k = f.find_integer("top_k", -1, bounds::token_id))
      defaults.top_k = static_cast<int>(*k);
    defaults.min_p = as_float(f.find_number("min_p", 0.0, 1.0));
    defaults.repetition_penalty = as_float(f.find_number("repetition_penalty", 1e-3, 1e3));
    for (const auto id : f.one_or_more("eos_token_id", -1, bounds::token_id))
      if (id >= 0) defaults.eos_ids.push_back(static_cast<std::int32_t>(id));
    if (f.failure()) return *f.failure();
    return defaults;
  });
}

}  // namespace tandem::model
