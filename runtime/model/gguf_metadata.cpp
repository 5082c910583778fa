#include "runtime/model/gguf_metadata.hpp"

#include "runtime/model/families.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace tandem::model {
namespace {

std::uint32_t narrow(std::int64_t value) { return static_cast<std::uint32_t>(value); }

std::vector<float> as_floats(const std::vector<double>& numbers) {
  return {numbers.begin(), numbers.end()};
}

// Llama 3's scaling as the numbers that divide each frequency.
std::vector<float> llama3_factors(const rope_parameters& p, const rope_config& rope) {
  std::vector<float> factors;
  for (std::size_t i = 0; i < rope.inverse_frequency.size(); ++i) {
    const double plain = std::pow(p.theta, -2.0 * static_cast<double>(i) / rope.rotary_size);
    factors.push_back(static_cast<float>(plain / rope.inverse_frequency[i]));
  }
  return factors;
}

class metadata_writer {
 public:
  metadata_writer(formats::gguf_writer& to, const model_config& config)
      : to_(to), config_(config), prefix_(gguf_architecture(config) + ".") {}

  void sizes() {
    integer("block_count", static_cast<std::int64_t>(config_.layers.size()));
    integer("context_length", config_.context_length);
    integer("embedding_length", config_.model_size);
    integer("feed_forward_length", config_.hidden_size);
    integer("attention.head_count", config_.query_heads);
    integer("attention.head_count_kv", config_.key_heads);
    integer("attention.key_length", config_.head_size);
    integer("attention.value_length", config_.head_size);
    integer("vocab_size", config_.vocabulary_size);
    number("attention.layer_norm_rms_epsilon", file_norm_eps(config_));
    if (config_.family == "granite") {
      const auto m = multipliers_of(config_);
      number("embedding_scale", m.embedding);
      number("residual_scale", m.residual);
      number("attention.scale", m.attention);
      number("logit_scale", m.logits);
    }
    if (config_.family == "gemma2") {
      number("attn_logit_softcapping", config_.attention_softcap);
      number("final_logit_softcapping", config_.logit_softcap);
    }
    if (config_.experts == 0) return;
    integer("expert_count", config_.experts);
    integer("expert_used_count", config_.experts_per_token);
    integer("expert_feed_forward_length", config_.expert_hidden_size);
  }

  void windows() {
    const auto windowed = [](const layer_config& layer) { return layer.window > 0; };
    const auto first = std::find_if(config_.layers.begin(), config_.layers.end(), windowed);
    if (first == config_.layers.end()) return;
    integer("attention.sliding_window", first->window);
    // Gemma: every so-manieth layer sees everything.
    const auto full = std::find_if_not(config_.layers.begin(), config_.layers.end(), windowed);
    if (full != config_.layers.end())
      integer("attention.sliding_window_pattern", full - config_.layers.begin() + 1);
  }

  std::vector<metadata_tensor> ropes(const std::vector<rope_parameters>& ropes) {
    const rope_parameters& p = ropes.front();
    integer("rope.dimension_count", config_.ropes.front().rotary_size);
    number("rope.freq_base", p.theta);
    if (ropes.size() > 1) number("rope.freq_base_swa", ropes[1].theta);
    if (p.type == "llama3")
      return {{"rope_freqs.weight", llama3_factors(p, config_.ropes.front())}};
    if (p.type == "longrope") {
      integer("rope.scaling.original_context_length", p.original_context);
      number("rope.scaling.attn_factor", config_.ropes.front().attention_factor);
      return {{"rope_factors_long.weight", as_floats(p.long_factor)},
              {"rope_factors_short.weight", as_floats(p.short_factor)}};
    }
    if (p.type == "linear" || p.type == "yarn") {
      to_.string(prefix_ + "rope.scaling.type", p.type);
      number("rope.scaling.factor", p.factor);
    }
    if (p.type == "yarn") {
      integer("rope.scaling.original_context_length", p.original_context);
      const double usual = p.factor > 1.0 ? 0.1 * std::log(p.factor) + 1.0 : 1.0;
      number("rope.scaling.attn_factor", double{config_.ropes.front().attention_factor} / usual);
    }
    return {};
  }

 private:
  void integer(const char* key, std::int64_t value) { to_.integer(prefix_ + key, narrow(value)); }
  void number(const char* key, double value) {
    to_.number(prefix_ + key, static_cast<float>(value));
  }

  formats::gguf_writer& to_;
  const model_config& config_;
  const std::string prefix_;
};

}  // namespace

std::string gguf_architecture(const model_config& config) {
  if (config.family == "mistral" || config.family == "mixtral") return "llama";
  if (config.family == "olmo3") return "olmo2";
  for (const auto& family : known_families())
    if (family.name == config.family) return std::string(family.gguf);
  return config.family;
}

std::vector<metadata_tensor> put_metadata(formats::gguf_writer& to, const model_config& config,
                                          const std::vector<rope_parameters>& ropes) {
  metadata_writer writer(to, config);
  writer.sizes();
  writer.windows();
  return writer.ropes(ropes);
}

}  // namespace tandem::model
