// Hugging Face's tokenizer files from a GGUF vocabulary: they encode as the tokenizer that is read
// from the GGUF file itself does.
#pragma once

#include "runtime/formats/gguf.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <string>

namespace tandem::text {

struct tokenizer_files {
  std::string tokenizer_json;
  std::string tokenizer_config_json;  // with the chat template, where the file has one
};
// Byte-level BPE (model "gpt2") and SentencePiece's BPE ("llama"); other kinds are refused by name.
result<tokenizer_files> tokenizer_files_from_gguf(const formats::gguf_file& file,
                                                  std::int64_t context_length);

}  // namespace tandem::text
