// Rotary frequencies of every scaling that the supported families use, from one plain description.
#pragma once

#include "runtime/model/model_config.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::model {

// What a config says about its rope. Names are Hugging Face's (modeling_rope_utils.py).
struct rope_parameters {
  std::string type = "default";  // default, linear, llama3, yarn, longrope (su), dynamic
  double theta = 10000.0;
  double factor = 1.0;
  std::optional<double> attention_factor;
  std::int64_t original_context = 0;  // before scaling
  double low_freq_factor = 1.0;       // llama3
  double high_freq_factor = 4.0;
  double beta_fast = 32.0;  // yarn
  double beta_slow = 1.0;
  double mscale = 0.0;
  double mscale_all_dim = 0.0;
  bool truncate = true;
  std::vector<double> short_factor;  // longrope, one for each frequency
  std::vector<double> long_factor;
  std::vector<double> frequency_factor;  // GGUF's rope_freqs.weight: divides each frequency
};

// Angles a position turns by, for the first `rotary_size` of a head's values.
// Sources: Su et al. 2021 (arXiv:2104.09864); position interpolation (arXiv:2306.15595); YaRN
// (arXiv:2309.00071); LongRoPE (arXiv:2402.13753); llama3 as in Meta's llama-models.
result<rope_config> make_rope(const rope_parameters& parameters, int rotary_size);
// Of layers that turn nothing: every angle is 0.
rope_config no_rope(int rotary_size);

// What a GGUF file's metadata says, of the layers that see everything.
result<rope_parameters> rope_from_gguf(const formats::gguf_file& file);
// What a config.json says, one for each of model_config::ropes.
result<std::vector<rope_parameters>> ropes_from_json(std::string_view config_json);

}  // namespace tandem::model
