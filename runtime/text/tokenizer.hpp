// Text to token ids and back, for every kind of vocabulary that models ship. One class; what
// differs between families (normalizer, pre-tokenizer, model, decoder, added tokens) is data read
// from tokenizer.json or from a GGUF file's metadata.
#pragma once

#include "runtime/result.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::formats {
class gguf_file;
}

namespace tandem::text {

using token_id = std::int32_t;

struct encode_options {
  // Put the model's own begin/end tokens where its post-processor puts them.
  bool add_special_tokens = true;
  // Read special tokens written in the text ("<|im_end|>") as control tokens. False: they are text
  // like any other, which is what a user's words must be.
  bool parse_special = false;
};

// A piece of a rendered prompt: `trusted` text comes from the model's template and may hold control
// tokens; the rest is a user's words and never does.
struct prompt_piece {
  std::string text;
  bool trusted = false;
};

// Immutable after loading; every const function may be called from any thread.
class tokenizer {
 public:
  // A Hugging Face tokenizer.json (and tokenizer_config.json beside it, when there).
  static result<std::shared_ptr<const tokenizer>> from_json(std::string_view tokenizer_json,
                                                            std::string_view config_json = {});
  static result<std::shared_ptr<const tokenizer>> from_folder(const std::filesystem::path& folder);
  // tokenizer.ggml.* of a GGUF file; vocabulary-only files too.
  static result<std::shared_ptr<const tokenizer>> from_gguf(const formats::gguf_file& file);

  ~tokenizer();

  std::vector<token_id> encode(std::string_view text, const encode_options& options = {}) const;
  // A prompt of trusted and untrusted pieces, encoded as one text whose control tokens stand in
  // trusted pieces only. Special tokens at begin and end are not added: templates write them.
  std::vector<token_id> encode_prompt(std::span<const prompt_piece> pieces) const;

  // The whole text of these ids. `skip_special` leaves control tokens out.
  std::string decode(std::span<const token_id> ids, bool skip_special = true) const;
  // The bytes one token stands for inside a text (not at its start); empty for ids out of range.
  std::string token_bytes(token_id id) const;
  // The vocabulary's own spelling ("Ġthe", "▁the", "<0x0A>"); empty for ids out of range.
  std::string_view token_spelling(token_id id) const;

  std::size_t vocabulary_size() const;
  std::size_t longest_token_bytes() const;  // the most bytes of text one id can stand for
  bool is_special(token_id id) const;
  std::optional<token_id> id_of(std::string_view spelling) const;
  std::optional<token_id> bos() const;
  std::optional<token_id> eos() const;
  std::optional<token_id> unknown() const;

  struct data;

 private:
  explicit tokenizer(std::unique_ptr<data> d);
  friend class detokenizer;
  std::unique_ptr<data> data_;
};

// Incremental decoding of one sequence: what `add` returned so far, joined, equals `decode` of the
// ids so far, except for bytes held back because they are the beginning of a character that the
// next token may finish. Never returns part of a UTF-8 character.
class detokenizer {
 public:
  explicit detokenizer(std::shared_ptr<const tokenizer> t, bool skip_special = true);
  // The text that becomes certain with this id; often empty, never half a character.
  std::string add(token_id id);
  // What was held back, with broken characters as U+FFFD. The end of the sequence.
  std::string finish();

  detokenizer(const detokenizer&);  // a copy goes on independently
  detokenizer(detokenizer&&) noexcept;
  detokenizer& operator=(const detokenizer&);
  detokenizer& operator=(detokenizer&&) noexcept;
  ~detokenizer();

 private:
  struct state;
  std::shared_ptr<const tokenizer> tokenizer_;
  bool skip_special_;
  std::unique_ptr<state> state_;
};

}  // namespace tandem::text
