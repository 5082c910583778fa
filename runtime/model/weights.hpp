// A weights version: immutable named tensors, packed once at load into device memory, with a
// number.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/memory/arena.hpp"
#include "runtime/model/model_config.hpp"
#include "runtime/model/tensor_split.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tandem::model {

// What the user asks for at load; `native` keeps the file's own precision.
enum class load_format : std::uint8_t { native, f32, bf16, q8_0, q4_1, dummy };
std::optional<load_format> load_format_from(std::string_view name);
std::string_view name_of(load_format format);

struct layer_weights {
  const float* attention_norm_D = nullptr;
  const float* post_attention_norm_D = nullptr;  // Gemma; null elsewhere
  const float* feed_forward_norm_D = nullptr;
  const float* post_feed_forward_norm_D = nullptr;
  const float* query_norm_H = nullptr;  // of wide norms of all heads
  const float* key_norm_H = nullptr;
  kernels::packed_matrix qkv_XD;  // queries, keys, values stacked: (N + 2K) * H outputs
  const float* qkv_bias_X = nullptr;
  kernels::packed_matrix output_DX;  // N * H inputs
  const float* output_bias_D = nullptr;
  kernels::packed_matrix gate_up_FD;  // pack_gated; unused in a MoE layer
  kernels::packed_matrix down_DF;
  kernels::packed_matrix router_ED;
  std::vector<kernels::expert_matrices> experts;
};

struct weights {
  std::uint64_t version = 1;
  model_config config;
  tensor_rank place;  // of several: the matrices hold this rank's outputs alone (tensor_split.hpp)
  load_format format = load_format::native;
  kernels::packed_matrix embedding_VD;
  kernels::packed_matrix head_VD;  // the embedding itself (a rank's rows of it) when tied
  const float* final_norm_D = nullptr;
  std::vector<layer_weights> layers;
  std::uint64_t parameter_count = 0;  // of the whole model
  // Set where the weights may outlive the device that made them; the arena is booked there.
  std::shared_ptr<memory::ledger> book;
  memory::arena memory;  // everything above lies here

  // What to call this precision: "q4_1", "f32", ... (the format most parameters have).
  std::string precision;
};

struct load_forecast {
  std::uint64_t bytes = 0;  // of device memory
  std::string precision;    // as weights::precision will be
};

// A model on disk: a GGUF file, or a folder with config.json and safetensors, opened and checked
// but not yet packed.
class model_source {
 public:
  // A .gguf file, a Hugging Face folder, or a folder holding exactly one .gguf file.
  static result<std::shared_ptr<const model_source>> open(const std::filesystem::path& path);
  virtual ~model_source() = default;

  virtual const model_config& config() const = 0;
  virtual const generation_defaults& defaults() const = 0;
  // The chat template's source as shipped (GGUF metadata; tokenizer_config.json;
  // chat_template.jinja; the one named "default" of several); nothing when there is none.
  virtual std::optional<std::string> chat_template() const = 0;
  // The tokenizer's files: the GGUF file itself, or the folder. Nothing when the model has none.
  virtual std::optional<std::filesystem::path> tokenizer_path() const = 0;
  virtual std::uint64_t file_bytes() const = 0;
  virtual std::string name() const = 0;  // a short name: folder or file stem

  // What `load` will make in this format, without loading. Missing, unknown and mis-shaped tensors
  // are refused by name.
  virtual result<load_forecast> forecast(const kernels::backend& device, load_format format,
                                         tensor_rank place = {}) const = 0;
  // Packs every tensor; of several ranks one's part of each, and reads nothing else.
  // `progress` (may be empty) is called with the fraction done, 0 to 1.
  virtual result<std::shared_ptr<const weights>> load(
      kernels::backend& device, memory::ledger& book, load_format format,
      const std::function<void(double)>& progress = {}, tensor_rank place = {}) const = 0;
};

}  // namespace tandem::model
