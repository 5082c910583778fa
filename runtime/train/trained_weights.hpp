// A checkpoint's model as rows of float32 under Hugging Face's names: full training's own
// parameters, or the base with the adapter added in (W + scale * B A). Everything is read into
// memory once; reading rows is thread-safe then.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/memory/arena.hpp"
#include "runtime/memory/ledger.hpp"
#include "runtime/model/adapter.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/result.hpp"
#include "runtime/train/checkpoint.hpp"
#include "runtime/train/named_tensors.hpp"

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace tandem::train {

// The adapter of a LoRA checkpoint.
class trained_adapter {
 public:
  static result<std::unique_ptr<trained_adapter>> read(const kernels::backend& device,
                                                       const model::model_config& config,
                                                       const std::filesystem::path& checkpoint,
                                                       const checkpoint_facts& facts);
  const model::adapter_layout& layout() const { return layout_; }
  model::module_numbers numbers(const model::adapter_module& module) const {
    return model::read_module(device_, layers_, module);
  }

 private:
  explicit trained_adapter(const kernels::backend& device) : device_(device) {}

  const kernels::backend& device_;
  model::adapter_layout layout_;
  std::unique_ptr<memory::ledger> book_;
  memory::arena memory_;
  std::vector<model::layer_adapter> layers_;
};

class trained_weights {
 public:
  // The calling thread must be the device's. `progress` (may be empty) hears the fraction read.
  static result<std::unique_ptr<trained_weights>> read(
      kernels::backend& device, const model::model_source& base,
      const std::filesystem::path& checkpoint, const checkpoint_facts& facts,
      const std::function<void(double)>& progress = {});

  const std::vector<named_tensor>& tensors() const { return layout_.tensors; }
  // As the model computes with them: norms as they multiply. `out` has tensor.columns floats.
  void row(const named_tensor& tensor, std::int64_t row, float* out) const;
  // As Hugging Face's files of the family store them: Gemma's norms less one.
  void file_row(const named_tensor& tensor, std::int64_t row, float* out) const;

 private:
  explicit trained_weights(const kernels::backend& device) : device_(device) {}
  result<void> read_full(const std::filesystem::path& checkpoint, const checkpoint_facts& facts);
  result<void> read_merged(kernels::backend& device, const model::model_source& base,
                           const std::filesystem::path& checkpoint, const checkpoint_facts& facts,
                           const std::function<void(double)>& progress);

  const kernels::backend& device_;
  parameter_layout layout_;
  std::unique_ptr<memory::ledger> book_;
  memory::arena memory_;                        // full training's
  std::shared_ptr<const model::weights> base_;  // LoRA's
  std::span<const float> arena_;                // of either
  float scale_ = 0.0F;
  std::unordered_map<std::string, model::module_numbers> added_;  // by tensor
};

}  // namespace tandem::train
