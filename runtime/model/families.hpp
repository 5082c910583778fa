// The supported families as data, and the bounds that keep a hostile config from costing anything.
#pragma once

#include "runtime/model/model_config.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace tandem::model {

struct family_traits {
  std::string_view name;        // model_config::family
  std::string_view model_type;  // in config.json
  std::string_view gguf;        // general.architecture
  kernels::activation activation = kernels::activation::silu;
  bool qkv_bias = false;       // always there, whatever the config says
  bool may_have_bias = false;  // `attention_bias` decides, for q, k, v and o
  bool head_norms = false;
  bool wide_norms = false;       // instead: one norm of all queries, one of all keys
  bool pre_norms = true;         // norms in front of attention and feed-forward
  bool gemma = false;            // norm weights minus 1, scaled embedding, defaults left out
  bool post_norms = false;       // norms behind attention and feed-forward too
  bool softcaps = false;         // Gemma 2's, of scores and logits
  bool local_rope = false;       // windowed layers turn by angles of their own
  bool skips_rope = false;       // some layers turn nothing
  bool multipliers = false;      // Granite's four
  bool partial_rotary = false;   // reads partial_rotary_factor
  bool tied_by_default = false;  // where config.json does not say
  bool moe = false;
  double theta = 10000.0;
  double norm_eps = 1e-6;
};

std::span<const family_traits> known_families();
// "llama, mistral, ...", for messages.
std::string family_names();
// Why a model of this config cannot be trained here; empty where it can be.
std::string untrainable(const model_config& config);
// Whether its Hugging Face files have norm weights minus 1.
bool stores_norms_minus_one(std::string_view family);

// Granite's: x = embedding * E[id]; x += residual * layer(x); scores are multiplied by `attention`
// and logits divided by `logits`.
struct multipliers {
  float embedding = 1.0F;
  float residual = 1.0F;
  float attention = 1.0F;
  float logits = 1.0F;
};
// Into the config, whose norm_eps is the file's, and out of it again.
void set_multipliers(model_config& config, const multipliers& m);
multipliers multipliers_of(const model_config& config);
// The epsilon as files have it.
double file_norm_eps(const model_config& config);

namespace bounds {
inline constexpr std::int64_t model_size = 1 << 17;
inline constexpr std::int64_t hidden_size = 1 << 20;
inline constexpr std::int64_t vocabulary_size = 1 << 22;
inline constexpr std::int64_t layers = 512;
inline constexpr std::int64_t heads = 1024;
inline constexpr std::int64_t head_size = 256;  // what attention has room for on every device
inline constexpr std::int64_t experts = 1024;
inline constexpr std::int64_t context_length = 1 << 27;
inline constexpr std::int64_t token_id = (std::int64_t{1} << 31) - 1;
}  // namespace bounds

// Every number within its bounds and all of them agreeing: what the forward and the kernels rely
// on. `where` names the file for the message.
result<model_config> checked(model_config config, std::string_view where);

}  // namespace tandem::model
