#include "runtime/model/families.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace tandem::model {

namespace {

constexpr std::array families{
    family_traits{.name = "llama", .model_type = "llama", .gguf = "llama", .may_have_bias = true},
    // Mistral's GGUF files call themselves llama.
    family_traits{.name = "mistral", .model_type = "mistral", .gguf = ""},
    family_traits{.name = "qwen2", .model_type = "qwen2", .gguf = "qwen2", .qkv_bias = true},
    family_traits{.name = "qwen3",
                  .model_type = "qwen3",
                  .gguf = "qwen3",
                  .may_have_bias = true,
                  .head_norms = true},
    family_traits{.name = "gemma3",
                  .model_type = "gemma3_text",
                  .gguf = "gemma3",
                  .activation = kernels::activation::gelu_tanh,
                  .may_have_bias = true,
                  .head_norms = true,
                  .gemma = true,
                  .post_norms = true,
                  .local_rope = true,
                  .tied_by_default = true,
                  .theta = 1000000.0},
    family_traits{.name = "phi3",
                  .model_type = "phi3",
                  .gguf = "phi3",
                  .partial_rotary = true,
                  .norm_eps = 1e-5},
    family_traits{.name = "qwen3_moe",
                  .model_type = "qwen3_moe",
                  .gguf = "qwen3moe",
                  .may_have_bias = true,
                  .head_norms = true,
                  .moe = true},
    // Its GGUF files call themselves llama, and have experts.
    family_traits{.name = "mixtral",
                  .model_type = "mixtral",
                  .gguf = "",
                  .moe = true,
                  .theta = 1000000.0,
                  .norm_eps = 1e-5},
    family_traits{.name = "gemma2",
                  .model_type = "gemma2",
                  .gguf = "gemma2",
                  .activation = kernels::activation::gelu_tanh,
                  .may_have_bias = true,
                  .gemma = true,
                  .post_norms = true,
                  .softcaps = true,
                  .tied_by_default = true},
    family_traits{.name = "gemma",
                  .model_type = "gemma",
                  .gguf = "gemma",
                  .activation = kernels::activation::gelu_tanh,
                  .may_have_bias = true,
                  .gemma = true,
                  .tied_by_default = true},
    family_traits{.name = "smollm3",
                  .model_type = "smollm3",
                  .gguf = "smollm3",
                  .may_have_bias = true,
                  .skips_rope = true,
                  .tied_by_default = true,
                  .theta = 2000000.0},
    family_traits{.name = "granite",
                  .model_type = "granite",
                  .gguf = "granite",
                  .may_have_bias = true,
                  .multipliers = true},
    family_traits{.name = "olmo2",
                  .model_type = "olmo2",
                  .gguf = "olmo2",
                  .may_have_bias = true,
                  .wide_norms = true,
                  .pre_norms = false,
                  .post_norms = true,
                  .norm_eps = 1e-5},
    // Its GGUF files call themselves olmo2, and have windows.
    family_traits{.name = "olmo3",
                  .model_type = "olmo3",
                  .gguf = "",
                  .may_have_bias = true,
                  .wide_norms = true,
                  .pre_norms = false,
                  .post_norms = true,
                  .local_rope = true,
                  .norm_eps = 1e-5},
    family_traits{.name = "exaone4",
                  .model_type = "exaone4",
                  .gguf = "exaone4",
                  .head_norms = true,
                  .pre_norms = false,
                  .post_norms = true,
                  .norm_eps = 1e-5},
    family_traits{
        .name = "seed_oss", .model_type = "seed_oss", .gguf = "seed_oss", .may_have_bias = true},
};

}  // namespace

std::span<const family_traits> known_families() { return families; }

std::string family_names() {
  std::string names;
  for (const auto& family : families) {
    if (!names.empty()) names += ", ";
    names += family.name;
  }
  return names;
}

std::string untrainable(const model_config& config) {
  const char* what = nullptr;
  if (config.attention_softcap != 0.0F || config.logit_softcap != 0.0F) what = "soft caps";
  if (!config.pre_norms) what = "layers without norms in front";
  if (config.wide_norms) what = "norms over all heads";
  if (what == nullptr) return {};
  return fmt::format("{} models have {}, which training does not know: they are served only",
                     config.family, what);
}

bool stores_norms_minus_one(std::string_view family) {
  return std::any_of(families.begin(), families.end(),
                     [&](const auto& one) { return one.name == family && one.gemma; });
}

void set_multipliers(model_config& config, const multipliers& m) {
  const double residual = m.residual;
  config.embedding_scale = static_cast<float>(m.embedding / residual);
  config.residual_scale = m.residual;
  config.norm_eps = static_cast<float>(config.norm_eps / (residual * residual));
  config.attention_scale = m.attention;
  config.logit_scale = 1.0F / m.logits;
}

multipliers multipliers_of(const model_config& config) {
  return {config.embedding_scale * config.residual_scale, config.residual_scale,
          config.attention_scale, 1.0F / config.logit_scale};
}

double file_norm_eps(const model_config& config) {
  const double residual = config.residual_scale;
  return double{config.norm_eps} * residual * residual;
}

result<model_config> checked(model_config config, std::string_view where) {
  struct bounded {
    std::string_view name;
    std::int64_t value;
    std::int64_t least;
    std::int64_t most;
  };
  const bool moe = config.experts > 0;
  const std::array numbers{
      bounded{"the model size", config.model_size, 1, bounds::model_size},
      bounded{"the feed-forward size", config.hidden_size, moe ? 0 : 1, bounds::hidden_size},
      bounded{"the vocabulary size", config.vocabulary_size, 1, bounds::vocabulary_size},
      bounded{"the layer count", static_cast<std::int64_t>(config.layers.size()), 1,
              bounds::layers},
      bounded{"the head count", config.query_heads, 1, bounds::heads},
      bounded{"the key head count", config.key_heads, 1, bounds::heads},
      bounded{"the head size", config.head_size, 2, bounds::head_size},
      bounded{"the context length", config.context_length, 1, bounds::context_length},
      bounded{"the expert count", config.experts, 0, bounds::experts},
      bounded{"the experts per token", config.experts_per_token, moe ? 1 : 0, config.experts},
      bounded{"the expert size", config.expert_hidden_size, moe ? 1 : 0, bounds::hidden_size},
  };
  for (const auto& number : numbers)
    if (number.value < number.least || number.value > number.most)
      return error{errc::bad_file,
                   fmt::format("{}: {} is {}, it must lie between {} and {}", where, number.name,
                               number.value, number.least, number.most),
                   {}};
  if (config.query_heads % config.key_heads != 0)
    return error{errc::bad_file,
                 fmt::format("{}: {} query heads cannot share {} key heads", where,
                             config.query_heads, config.key_heads),
                 {}};
  if (config.head_size % 8 != 0)
    return error{errc::unsupported,
                 fmt::format("{}: the head size {} is no multiple of 8, which attention works in",
                             where, config.head_size),
                 {}};
  const auto positive = [](float value) { return std::isfinite(value) && value > 0.0F; };
  if (!positive(config.norm_eps) || config.norm_eps > 1.0F || !positive(config.attention_scale) ||
      !positive(config.embedding_scale) || !positive(config.logit_scale))
    return error{
        errc::bad_file,
        fmt::format("{}: norm epsilon {}, attention scale {}, embedding scale {} or logit scale "
                    "{} is not a usable number",
                    where, config.norm_eps, config.attention_scale, config.embedding_scale,
                    config.logit_scale),
        {}};
  for (const auto& layer : config.layers) {
    ensure(layer.rope >= 0 && static_cast<std::size_t>(layer.rope) < config.ropes.size(),
           "a layer names a rope that is not there");
    ensure(layer.window >= 0, "a negative window");
  }
  for (const auto& rope : config.ropes)
    if (rope.rotary_size > config.head_size)
      return error{errc::bad_file,
                   fmt::format("{}: rope turns {} of {} values of a head", where, rope.rotary_size,
                               config.head_size),
                   {}};
  return config;
}

}  // namespace tandem::model
