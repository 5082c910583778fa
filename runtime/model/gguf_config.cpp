// model_config from a GGUF file's metadata. Keys are those of llama.cpp's converter
// (gguf-py/gguf/constants.py); what a key leaves out is told by the tensors that are there.
#include "runtime/formats/gguf.hpp"
#include "runtime/model/families.hpp"
#include "runtime/model/model_config.hpp"
#include "runtime/model/rope.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

namespace tandem::model {

namespace {

// Ends of a turn that files do not always name: llama.cpp looks for the same spellings.
constexpr std::array<std::string_view, 8> end_spellings{
    "<|eot_id|>",    "<|im_end|>", "<|end|>",         "<end_of_turn>",
    "<|endoftext|>", "<|eom_id|>", "<|end_of_text|>", "<EOT>"};
constexpr std::int64_t control_token = 3;  // tokenizer.ggml.token_type
constexpr std::int64_t user_defined_token = 4;
constexpr int gemma_window_period = 6;
constexpr int gemma2_window_period = 2;
constexpr int olmo3_window_period = 4;  // and EXAONE 4's
constexpr int smollm3_turned_period = 4;
// The two whose query_pre_attn_scalar is not their head size; no key says so.
constexpr std::size_t gemma3_27b_layers = 62;
constexpr std::size_t gemma2_27b_layers = 46;

// Some families' files call themselves by another's name: Mixtral's have experts, OLMo 3's windows.
std::string_view family_name(const formats::gguf_file& file, std::string_view architecture) {
  if (architecture == "llama" && file.integer("llama.expert_count").value_or(0) > 0)
    return "mixtral";
  if (architecture == "olmo2" && file.integer("olmo2.attention.sliding_window").value_or(0) > 0)
    return "olmo3";
  for (const auto& family : known_families())
    if (!architecture.empty() && family.gguf == architecture) return family.name;
  return {};
}

const family_traits* family_of(const formats::gguf_file& file, std::string_view architecture) {
  const auto name = family_name(file, architecture);
  for (const auto& family : known_families())
    if (family.name == name) return &family;
  return nullptr;
}

std::string architecture_names() {
  std::string names;
  for (const auto& family : known_families()) {
    if (family.gguf.empty()) continue;
    if (!names.empty()) names += ", ";
    names += family.gguf;
  }
  return names;
}

class gguf_config_reader {
 public:
  gguf_config_reader(const formats::gguf_file& file, const family_traits& family,
                     std::string_view architecture)
      : file_(file), family_(family), prefix_(std::string(architecture) + ".") {}

  result<model_config> read() {
    config_.family = family_.name;
    refuse_unsupported();
    read_sizes();
    read_experts();
    read_tokens();
    if (failure_) return *failure_;
    read_ropes();
    read_windows();
    if (failure_) return *failure_;
    return checked(std::move(config_), "GGUF metadata");
  }
  result<rope_parameters> rope() {
    read_sizes();
    auto parameters = scaled_rope();
    if (failure_) return *failure_;
    return parameters;
  }

 private:
  void refuse_unsupported();
  void read_sizes();
  void read_multipliers();
  void read_experts();
  void read_tokens();
  void read_ropes();
  void read_windows();
  void add_rope(const rope_parameters& parameters, int rotary_size);
  rope_parameters scaled_rope();
  std::vector<double> factors(std::string_view tensor);

  std::int64_t integer(std::string_view key, std::int64_t least, std::int64_t most,
                       std::optional<std::int64_t> otherwise = std::nullopt);
  double number(std::string_view key, double otherwise);
  bool has_layer_tensor(std::size_t layer, std::string_view name) const {
    return file_.tensor(fmt::format("blk.{}.{}", layer, name)) != nullptr;
  }
  void refuse(errc code, std::string detail) {
    if (!failure_) failure_ = error{code, "GGUF metadata: " + std::move(detail), {}};
  }

  const formats::gguf_file& file_;
  const family_traits& family_;
  const std::string prefix_;
  model_config config_;
  std::optional<error> failure_;
};

std::int64_t gguf_config_reader::integer(std::string_view key, std::int64_t least,
                                         std::int64_t most, std::optional<std::int64_t> otherwise) {
  const std::string name = prefix_ + std::string(key);
  const auto value = file_.integer(name);
  if (!value && otherwise && !file_.has(name)) return *otherwise;
  if (!value || *value < least || *value > most) {
    refuse(errc::bad_file,
           value ? fmt::format("{} is {}, it must lie between {} and {}", name, *value, least, most)
                 : fmt::format("{} is missing or no whole number", name));
    return least;
  }
  return *value;
}

double gguf_config_reader::number(std::string_view key, double otherwise) {
  const std::string name = prefix_ + std::string(key);
  if (!file_.has(name)) return otherwise;
  const auto value = file_.number(name);
  if (!value || !std::isfinite(*value)) {
    refuse(errc::bad_file, fmt::format("{} is no number", name));
    return otherwise;
  }
  return *value;
}

void gguf_config_reader::refuse_unsupported() {
  const auto known = [&](std::string_view key) {
    return (family_.softcaps && key.ends_with("softcapping")) ||
           (family_.multipliers && key.ends_with("scale"));
  };
  for (const auto* key :
       {"attn_logit_softcapping", "final_logit_softcapping", "logit_scale", "residual_scale",
        "embedding_scale", "attention.scale", "attention.clamp_kqv", "attention.max_alibi_bias"})
    if (const double value = number(key, 0.0); value != 0.0 && !known(key))
      refuse(errc::unsupported,
             fmt::format("{}{} = {} changes the model's arithmetic and is not supported", prefix_,
                         key, value));
  if (!family_.moe && integer("expert_count", 0, bounds::experts, 0) > 0)
    refuse(errc::unsupported,
           fmt::format(
               "{}expert_count is {}: experts are supported in qwen3moe and llama (Mixtral) only",
               prefix_, integer("expert_count", 0, bounds::experts, 0)));
}

void gguf_config_reader::read_sizes() {
  config_.model_size = integer("embedding_length", 1, bounds::model_size);
  config_.query_heads = static_cast<int>(integer("attention.head_count", 1, bounds::heads));
  config_.key_heads =
      static_cast<int>(integer("attention.head_count_kv", 1, bounds::heads, config_.query_heads));
  config_.layers.resize(static_cast<std::size_t>(integer("block_count", 1, bounds::layers)));
  config_.hidden_size = integer("feed_forward_length", 1, bounds::hidden_size,
                                family_.moe ? std::optional<std::int64_t>(0) : std::nullopt);
  config_.context_length = integer("context_length", 1, bounds::context_length);
  const std::int64_t head_size = integer("attention.key_length", 1, bounds::head_size,
                                         config_.model_size / config_.query_heads);
  config_.head_size = static_cast<int>(std::clamp<std::int64_t>(head_size, 1, bounds::head_size));
  if (const auto values = integer("attention.value_length", 1, bounds::head_size, head_size);
      values != head_size)
    refuse(errc::unsupported, fmt::format("heads have keys of {} and values of {}; they must be "
                                          "equal",
                                          head_size, values));
  config_.norm_eps =
      static_cast<float>(number("attention.layer_norm_rms_epsilon", family_.norm_eps));

  config_.activation = family_.activation;
  config_.head_norms = family_.head_norms;
  config_.post_norms = family_.post_norms;
  config_.pre_norms = family_.pre_norms;
  config_.wide_norms = family_.wide_norms;
  config_.norm_weight_plus_one = false;  // the converter adds it
  double score_scale = config_.head_size;
  if (family_.gemma) config_.embedding_scale = std::sqrt(static_cast<float>(config_.model_size));
  if (family_.gemma && family_.post_norms &&
      config_.layers.size() == (family_.local_rope ? gemma3_27b_layers : gemma2_27b_layers))
    score_scale = static_cast<double>(config_.model_size / config_.query_heads);
  config_.attention_scale = static_cast<float>(1.0 / std::sqrt(score_scale));
  if (family_.softcaps) {
    config_.attention_softcap = static_cast<float>(number("attn_logit_softcapping", 50.0));
    config_.logit_softcap = static_cast<float>(number("final_logit_softcapping", 30.0));
  }
  if (family_.multipliers) read_multipliers();
  config_.tied_head = file_.tensor("output.weight") == nullptr;
  config_.qkv_bias = has_layer_tensor(0, "attn_q.bias");
  config_.output_bias = has_layer_tensor(0, "attn_output.bias");
}

// Granite's; 0 is as good as not there.
void gguf_config_reader::read_multipliers() {
  const auto multiplier = [&](std::string_view key, float otherwise) {
    const double value = number(key, 0.0);
    if (value == 0.0) return otherwise;
    if (!(value >= 1e-6 && value <= 1e6))
      refuse(errc::bad_file, fmt::format("{}{} is {}", prefix_, key, value));
    return static_cast<float>(value);
  };
  const multipliers m{multiplier("embedding_scale", 1.0F), multiplier("residual_scale", 1.0F),
                      multiplier("attention.scale", config_.attention_scale),
                      multiplier("logit_scale", 1.0F)};
  if (!failure_) set_multipliers(config_, m);
}

void gguf_config_reader::read_experts() {
  if (!family_.moe) return;
  config_.experts = static_cast<int>(integer("expert_count", 1, bounds::experts));
  config_.experts_per_token = static_cast<int>(integer("expert_used_count", 1, bounds::experts));
  config_.expert_hidden_size =
      integer("expert_feed_forward_length", 1, bounds::hidden_size,
              family_.name == "mixtral" ? std::optional(config_.hidden_size) : std::nullopt);
  config_.normalize_expert_weights = true;  // always
  for (std::size_t i = 0; i < config_.layers.size(); ++i)
    config_.layers[i].moe = has_layer_tensor(i, "ffn_gate_inp.weight");
}

void gguf_config_reader::read_tokens() {
  const auto tokens = file_.strings("tokenizer.ggml.tokens");
  const auto* embedding = file_.tensor("token_embd.weight");
  if (embedding != nullptr)
    config_.vocabulary_size = embedding->shape.front();
  else if (tokens)
    config_.vocabulary_size = static_cast<std::int64_t>(tokens->size());

  const auto add_end = [&](std::int64_t id) {
    const auto narrow = static_cast<std::int32_t>(id);
    if (id >= 0 && id < config_.vocabulary_size &&
        std::find(config_.eos_ids.begin(), config_.eos_ids.end(), narrow) == config_.eos_ids.end())
      config_.eos_ids.push_back(narrow);
  };
  for (const auto* key : {"eos", "eot", "eom"})
    add_end(file_.integer(fmt::format("tokenizer.ggml.{}_token_id", key)).value_or(-1));
  const auto types = file_.integers("tokenizer.ggml.token_type");
  if (tokens && types && tokens->size() == types->size()) {
    for (std::size_t i = 0; i < tokens->size(); ++i) {
      if ((*types)[i] != control_token && (*types)[i] != user_defined_token) continue;
      if (std::find(end_spellings.begin(), end_spellings.end(), (*tokens)[i]) !=
          end_spellings.end())
        add_end(static_cast<std::int64_t>(i));
    }
  }
  const auto bos = file_.integer("tokenizer.ggml.bos_token_id");
  if (bos && *bos >= 0 && *bos <= bounds::token_id)
    config_.bos_id = static_cast<std::int32_t>(*bos);
}

std::vector<double> gguf_config_reader::factors(std::string_view name) {
  const auto* tensor = file_.tensor(name);
  if (tensor == nullptr) return {};
  if (tensor->format != kernels::source_format::f32 || tensor->shape.size() != 1 ||
      tensor->shape[0] > bounds::head_size) {
    refuse(errc::bad_file, fmt::format("tensor '{}' is no list of F32 numbers", name));
    return {};
  }
  std::vector<double> values;
  for (std::size_t at = 0; at < tensor->bytes.size(); at += sizeof(float)) {
    float value = 0.0F;
    std::memcpy(&value, tensor->bytes.data() + at, sizeof value);
    values.push_back(value);
  }
  return values;
}

// Rope of the layers that see everything.
rope_parameters gguf_config_reader::scaled_rope() {
  rope_parameters p;
  p.theta = number("rope.freq_base", family_.theta);
  p.original_context = integer("rope.scaling.original_context_length", 1, bounds::context_length,
                               config_.context_length);
  p.frequency_factor = factors("rope_freqs.weight");
  p.long_factor = factors("rope_factors_long.weight");
  p.short_factor = factors("rope_factors_short.weight");
  const auto type = file_.string(prefix_ + "rope.scaling.type");
  const double old_linear = number("rope.scale_linear", 0.0);
  p.factor = number("rope.scaling.factor", old_linear != 0.0 ? old_linear : 1.0);
  const double attention = number("rope.scaling.attn_factor", 1.0);
  if (!p.long_factor.empty() || !p.short_factor.empty()) {
    p.type = "longrope";
    p.factor =
        static_cast<double>(config_.context_length) / static_cast<double>(p.original_context);
    if (file_.has(prefix_ + "rope.scaling.attn_factor")) p.attention_factor = attention;
  } else if (type) {
    p.type = *type == "none" ? "default" : std::string(*type);
    if (p.type == "yarn") {
      const double stretched = p.factor > 1.0 ? 0.1 * std::log(p.factor) + 1.0 : 1.0;
      p.attention_factor = attention * stretched;
    }
  } else if (old_linear != 0.0) {
    p.type = "linear";
  }
  return p;
}

void gguf_config_reader::add_rope(const rope_parameters& parameters, int rotary_size) {
  auto rope = make_rope(parameters, rotary_size);
  if (!rope) return refuse(rope.error().code, rope.error().detail);
  config_.ropes.push_back(std::move(*rope));
}

void gguf_config_reader::read_ropes() {
  const auto rotary =
      static_cast<int>(integer("rope.dimension_count", 1, bounds::head_size, config_.head_size));
  const bool interleaved = prefix_ == "llama." || family_.skips_rope || family_.multipliers;
  if (interleaved && rotary != config_.head_size)
    return refuse(errc::unsupported,
                  fmt::format("{}rope.dimension_count is {} of {}: partial rotary is not "
                              "supported in files of this kind",
                              prefix_, rotary, config_.head_size));
  const auto parameters = scaled_rope();
  if (failure_) return;
  add_rope(parameters, rotary);
  if (family_.name == "exaone4") config_.ropes.push_back(no_rope(rotary));
  if (family_.skips_rope) {
    config_.ropes.push_back(no_rope(rotary));
    for (std::size_t i = 0; i < config_.layers.size(); ++i)
      config_.layers[i].rope = (i + 1) % smollm3_turned_period == 0 ? 1 : 0;
  }
  if (family_.local_rope) {
    rope_parameters local;
    local.theta = number("rope.freq_base_swa", family_.gemma ? 10000.0 : parameters.theta);
    add_rope(local, rotary);
  }
}

void gguf_config_reader::read_windows() {
  const auto window = static_cast<int>(
      integer("attention.sliding_window", 0, bounds::context_length, family_.softcaps ? 4096 : 0));
  if (window == 0 || family_.skips_rope || family_.multipliers || family_.name == "gemma") return;
  const int usual = !family_.gemma       ? olmo3_window_period
                    : family_.local_rope ? gemma_window_period
                                         : gemma2_window_period;
  const auto period =
      static_cast<std::size_t>(integer("attention.sliding_window_pattern", 1, bounds::layers,
                                       family_.post_norms ? usual : bounds::layers));
  for (std::size_t i = 0; i < config_.layers.size(); ++i) {
    if (family_.post_norms && (i + 1) % period == 0) {
      if (family_.name == "exaone4") config_.layers[i].rope = 1;  // turns nothing
      continue;
    }
    config_.layers[i].window = window;
    if (family_.local_rope) config_.layers[i].rope = 1;
  }
}

result<const family_traits*> known_family(const formats::gguf_file& file) {
  const auto architecture = file.string("general.architecture");
  if (!architecture)
    return error{errc::bad_file, "GGUF metadata: general.architecture is missing", {}};
  const auto* family = family_of(file, *architecture);
  if (family == nullptr)
    return error{errc::unsupported,
                 fmt::format("GGUF metadata: the architecture '{}' is not known ({} are)",
                             *architecture, architecture_names()),
                 {}};
  return family;
}

}  // namespace

result<model_config> config_from_gguf(const formats::gguf_file& file) {
  const auto family = known_family(file);
  if (!family) return family.error();
  return gguf_config_reader(file, **family, file.string("general.architecture").value_or(""))
      .read();
}

result<rope_parameters> rope_from_gguf(const formats::gguf_file& file) {
  const auto family = known_family(file);
  if (!family) return family.error();
  return gguf_config_reader(file, **family, file.string("general.architecture").value_or(""))
      .rope();
}

}  // namespace tandem::model
