// A model whose tokens are bytes, so that every number in an answer can be counted by hand.
#pragma once

#include "gateway/engine.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::test {

// Id = byte; 256, 257, 258 are control tokens, and `more` from 259 on. begin-of-text is put before
// a plain prompt.
inline std::string byte_tokenizer_json(const std::vector<std::string>& more = {}) {
  // GPT-2's letters for bytes: printable ones stand for themselves, the others follow from U+0100.
  const auto utf8 = [](unsigned code) {
    std::string text;
    if (code < 0x80) {
      text += static_cast<char>(code);
    } else {
      text += static_cast<char>(0xC0U | (code >> 6U));
      text += static_cast<char>(0x80U | (code & 0x3FU));
    }
    return text;
  };
  std::string vocabulary;
  unsigned next = 256;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool plain = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
    std::string letter = utf8(plain ? byte : next++);
    if (letter == "\"" || letter == "\\") letter = "\\" + letter;
    vocabulary += "\"" + letter + "\":" + std::to_string(byte) + ",";
  }
  const auto special = [](int id, const std::string& name) {
    return R"({"id":)" + std::to_string(id) + R"(,"content":")" + name +
           R"(","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true})";
  };
  std::string added;
  std::string added_vocabulary;
  int id = 259;
  for (const std::string& name : more) {
    added += "," + special(id, name);
    added_vocabulary += ",\"" + name + "\":" + std::to_string(id++);
  }
  return R"({"version":"1.0","added_tokens":[)" + special(256, "<|begin|>") + "," +
         special(257, "<|im_start|>") + "," + special(258, "<|im_end|>") + added +
         R"(],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,)"
         R"("trim_offsets":true,"use_regex":false},"post_processor":{"type":"TemplateProcessing",)"
         R"("single":[{"SpecialToken":{"id":"<|begin|>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],)"
         R"("pair":[],"special_tokens":{"<|begin|>":{"id":"<|begin|>","ids":[256],"tokens":["<|begin|>"]}}},)"
         R"("decoder":{"type":"ByteLevel"},"model":{"type":"BPE","dropout":null,"unk_token":null,)"
         R"("continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,)"
         R"("byte_fallback":false,"vocab":{)" +
         vocabulary + R"("<|begin|>":256,"<|im_start|>":257,"<|im_end|>":258)" + added_vocabulary +
         R"(},"merges":[]}})";
}

inline constexpr std::string_view chatml =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

inline std::shared_ptr<gateway::served_model> byte_model() {
  auto model = std::make_shared<gateway::served_model>();
  model->id = "bytes";
  model->family = "llama";
  model->precision = "q4_1";
  model->created = 1'700'000'000;
  model->context_length = 200;
  model->vocabulary_size = 259;
  model->parameter_count = 134'515'008;
  model->eos_ids = {258};
  model->devices = {"cpu:0-1"};
  static const auto tokenizer = [] {
    auto read = text::tokenizer::from_json(byte_tokenizer_json());
    ensure(read.has_value(), "the byte tokenizer loads");
    return *read;
  }();
  static const auto chat_template = [] {
    auto compiled = text::chat_template::compile(chatml);
    ensure(compiled.has_value(), "the ChatML template compiles");
    return std::make_shared<const text::chat_template>(*compiled);
  }();
  model->tokenizer = tokenizer;
  model->chat_template = chat_template;
  return model;
}

// Token ids only.
inline std::shared_ptr<gateway::served_model> wordless_model() {
  auto model = byte_model();
  model->id = "wordless";
  model->tokenizer = nullptr;
  model->chat_template = nullptr;
  model->no_chat_reason = "its folder has no tokenizer.json";
  return model;
}

}  // namespace tandem::test
