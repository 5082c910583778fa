// Hugging Face's small files of a model: config.json and generation_config.json, written so that
// transformers and config_from_json both read the arithmetic that model_config holds.
#pragma once

#include "runtime/formats/gguf.hpp"
#include "runtime/model/model_config.hpp"
#include "runtime/result.hpp"
#include "runtime/text/value.hpp"

#include <string>
#include <string_view>

namespace tandem::model {

// From a GGUF file's metadata. Read back before it is given out: what config.json cannot say
// (unsupported) is refused by name, never approximated.
result<text::value> hf_config_from_gguf(const formats::gguf_file& file, std::string_view dtype);
// A folder's own config.json for weights of another dtype; of a picture model its text model.
result<text::value> hf_config_from_json(std::string_view config_json, std::string_view dtype);

text::value hf_generation_config(const model_config& config);

// The first thing by which two configs compute differently ("the window of layer 3"), or empty.
// Context lengths and token ids are not arithmetic; frequencies may differ by rounding.
std::string difference_of(const model_config& one, const model_config& other);

}  // namespace tandem::model
