// A checkpoint as files that others read: peft's adapter, Hugging Face's folder, or a GGUF file.
// The folder appears whole or not at all.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/result.hpp"
#include "runtime/train/checkpoint.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace tandem::train {

enum class export_form : std::uint8_t {
  adapter,  // LoRA alone: adapter_config.json, adapter_model.safetensors (float32)
  merged,   // a whole model: config.json, model.safetensors, the tokenizer's files
  gguf      // a whole model in one .gguf file
};

struct export_options {
  export_form form = export_form::merged;
  // Of matrices; norms and biases stay float32 in a GGUF file. q8_0 in a GGUF file only.
  kernels::source_format format = kernels::source_format::f32;
  std::function<void(double)> progress;  // may be empty; hears 0 to 1
};

struct exported {
  std::filesystem::path path;      // the folder
  std::vector<std::string> files;  // in it, sorted
  std::uint64_t bytes = 0;
};

// `base` is opened from `base_path`. The folder must not be there, or be empty. The calling thread
// must be the device's.
result<exported> export_checkpoint(kernels::backend& device,
                                   const std::filesystem::path& checkpoint,
                                   const std::filesystem::path& base_path,
                                   const std::filesystem::path& folder,
                                   const export_options& options);

}  // namespace tandem::train
