// A GGUF file's metadata for a model that has none: the keys that llama.cpp's converter writes and
// gguf_config reads. Tokenizers are written by runtime/text/tokenizer_to_gguf.hpp.
#pragma once

#include "runtime/formats/gguf_writer.hpp"
#include "runtime/model/model_config.hpp"
#include "runtime/model/rope.hpp"
#include "runtime/result.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace tandem::model {

// general.architecture of a family: mistral is a llama there.
std::string gguf_architecture(const model_config& config);

// Small tensors that belong to the metadata: frequencies.
struct metadata_tensor {
  std::string name;
  std::vector<float> numbers;
};

// Everything about the arithmetic; `ropes` as ropes_from_json gives them.
std::vector<metadata_tensor> put_metadata(formats::gguf_writer& to, const model_config& config,
                                          const std::vector<rope_parameters>& ropes);

}  // namespace tandem::model
