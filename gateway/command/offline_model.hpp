// The text side of a model on disk, without its weights: what `tokenize` and `render` need.
// Vocabulary-only GGUF files are enough.
#pragma once

#include "runtime/result.hpp"
#include "runtime/text/chat_template.hpp"
#include "runtime/text/tokenizer.hpp"

#include <filesystem>
#include <memory>
#include <string>

namespace tandem::gateway::command {

// A .gguf file, a Hugging Face folder, a folder with one .gguf file, or a tokenizer.json.
result<std::shared_ptr<const text::tokenizer>> load_tokenizer(const std::filesystem::path& path);

// The source of the model's own chat template: GGUF metadata; chat_template.jinja or
// tokenizer_config.json in a folder (the one named "default" of several).
result<std::string> load_chat_template(const std::filesystem::path& path);

// A text file whole, up to 16 MiB.
result<std::string> read_text_file(const std::filesystem::path& path);

}  // namespace tandem::gateway::command
