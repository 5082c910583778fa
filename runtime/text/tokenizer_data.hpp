// What a tokenizer is made of, once its file has been read. Both readers (tokenizer.json, GGUF)
// fill it; tokenizer.cpp runs it.
#pragma once

#include "runtime/text/added_tokens.hpp"
#include "runtime/text/decoder.hpp"
#include "runtime/text/normalizer.hpp"
#include "runtime/text/piece_model.hpp"
#include "runtime/text/pretokenizer.hpp"
#include "runtime/text/tokenizer.hpp"

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace tandem::text {

// Ids above this are refused: no vocabulary comes near, and a broken file must not cost gigabytes.
inline constexpr token_id id_max = (1 << 22) - 1;

struct tokenizer::data {
  std::vector<std::string> spellings;  // by id; empty where there is none
  string_table ids;
  std::vector<char> special;  // by id
  std::vector<char> added;    // by id

  added_token_finder tokens;             // looked for in the text as it came
  added_token_finder normalized_tokens;  // looked for in the normalized text
  bool special_in_normalized = false;
  text::normalizer normalizer;
  text::pre_tokenizer pre_tokenizer;
  std::unique_ptr<const piece_model> model;
  std::vector<token_id> prefix;  // what the post-processor puts in front
  std::vector<token_id> suffix;
  text::decoder decoder;
  bool added_are_literal = false;  // added tokens stand for their own bytes (GGUF)

  std::optional<token_id> bos;
  std::optional<token_id> eos;
  std::optional<token_id> unknown;

  mutable std::once_flag longest_once;
  mutable std::size_t longest = 0;

  // Registers a spelling. Ids must be in [0, id_max].
  void add_spelling(std::string_view spelling, token_id id);
  // Makes a token one that is cut out of texts. Call when the normalizer is complete.
  void add_token(const added_token& token);
  void feed(decoding& d, token_id id) const;
  bool has(token_id id) const {
    return id >= 0 && static_cast<std::size_t>(id) < spellings.size() &&
           !spellings[static_cast<std::size_t>(id)].empty();
  }
};

}  // namespace tandem::text
