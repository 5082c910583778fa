// What a decoder-only model is, as data: the differences between families are fields here, so that
// there is one forward. Read from a Hugging Face config.json (both layouts: rope_theta and
// rope_scaling, or rope_parameters) or from GGUF metadata.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::formats {
class gguf_file;
}

namespace tandem::model {

struct rope_config {
  int rotary_size = 0;                   // of head_size; partial rotary turns fewer
  std::vector<float> inverse_frequency;  // rotary_size / 2, scaling (llama3, linear, yarn) applied
  float attention_factor = 1.0F;         // yarn, longrope: multiplies cos and sin
  // longrope: used instead where a device serves more positions than the original context, so that
  // all of a sequence's keys turn by the same angles.
  std::vector<float> long_inverse_frequency;
  std::int64_t original_context = 0;
  bool operator==(const rope_config&) const = default;
};

struct layer_config {
  int window = 0;  // sliding window in positions; 0: full attention
  int rope = 0;    // index into model_config::ropes
  bool moe = false;
  bool operator==(const layer_config&) const = default;
};

struct model_config {
  std::string family;                // as families.cpp names it
  std::int64_t model_size = 0;       // D
  std::int64_t hidden_size = 0;      // F, of a dense layer
  std::int64_t vocabulary_size = 0;  // V
  int query_heads = 0;               // N
  int key_heads = 0;                 // K
  int head_size = 0;                 // H
  std::int64_t context_length = 0;
  float norm_eps = 1e-6F;
  float embedding_scale = 1.0F;    // Gemma: sqrt(D)
  float attention_scale = 0.0F;    // on the scores
  float attention_softcap = 0.0F;  // Gemma 2: scores become cap * tanh(score / cap); 0: off
  float logit_softcap = 0.0F;      // likewise logits, where they are sampled or scored
  float logit_scale = 1.0F;  // Granite: on logits; the final norm's weights take it in at load
  // Granite multiplies by r what a layer adds to x. Norms see no difference between x and x / r
  // where their epsilon is divided by r^2, so embedding_scale and norm_eps have taken r in; this
  // says it.
  float residual_scale = 1.0F;
  kernels::activation activation = kernels::activation::silu;
  bool norm_weight_plus_one = false;  // Gemma (Hugging Face files): weights are stored minus 1
  bool post_norms = false;            // Gemma 2, 3: norms after attention and feed-forward too
  bool pre_norms = true;              // OLMo 2, EXAONE 4: norms behind alone
  bool head_norms = false;            // Qwen3, Gemma 3: rms_norm of each query and key head
  bool wide_norms = false;            // OLMo 2: one rms_norm of all queries, one of all keys
  bool tied_head = false;             // output head is the embedding table
  bool qkv_bias = false;              // Qwen2; others where their config says attention_bias
  bool output_bias = false;           // of attention's output
  int experts = 0;                    // E
  int experts_per_token = 0;
  std::int64_t expert_hidden_size = 0;
  bool normalize_expert_weights = true;
  std::vector<rope_config> ropes;
  std::vector<layer_config> layers;
  std::vector<std::int32_t> eos_ids;  // generation ends at any of these
  std::optional<std::int32_t> bos_id;

  bool operator==(const model_config&) const = default;
};

result<model_config> config_from_json(std::string_view config_json);
result<model_config> config_from_gguf(const formats::gguf_file& file);

// generation_config.json: a model's own sampling defaults; fields it does not set stay empty.
struct generation_defaults {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::vector<std::int32_t> eos_ids;
  bool operator==(const generation_defaults&) const = default;
};
result<generation_defaults> generation_defaults_from_json(std::string_view json);

}  // namespace tandem::model
