// FP8 checkpoints of Hugging Face: what config.json says of them, and the scales beside the
// weights. A weight X.weight of F8_E4M3 [N, K] has its scales in X.weight_scale_inv (quant_method
// "fp8") or X.weight_scale ("fp8" without blocks, compressed-tensors); both multiply, whatever the
// name says. They are one number, [N] or [N, 1], or of blocks [ceil(N / rows), ceil(K / columns)].
// Scales of activations, keys and values are not used: nothing but weights is rounded to FP8 here.
#pragma once

#include "runtime/model/fields.hpp"
#include "runtime/model/load_plan.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <optional>
#include <string_view>

namespace tandem::model {

// Weights under one scale where scales go by blocks; otherwise both are 0.
struct fp8_scheme {
  std::int64_t block_rows = 0;
  std::int64_t block_columns = 0;
  bool operator==(const fp8_scheme&) const = default;
};

// quantization_config of a config.json; nothing where there is none. What is not e4m3 weights with
// scales is refused through `config`, with what was found.
std::optional<fp8_scheme> read_fp8_scheme(fields& config);
result<std::optional<fp8_scheme>> fp8_scheme_from_json(std::string_view config_json);

// Gives every weight of e4m3 its scales and takes those out of the set. Refuses by name: a weight
// without scales, or with scales of another shape, or not finite, or negative.
result<void> attach_fp8_scales(tensor_set& files, const std::optional<fp8_scheme>& scheme);

// Tensors of FP8 checkpoints that are not used.
bool is_unused_fp8_scale(std::string_view name);

}  // namespace tandem::model
