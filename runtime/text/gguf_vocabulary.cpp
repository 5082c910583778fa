#include "runtime/text/gguf_vocabulary.hpp"

#include "runtime/text/tokenizer_data.hpp"
#include "runtime/text/utf8.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

namespace tandem::text {

namespace {

using kind = token_kind;

// Phi-3's control tokens take the white space behind them; the file does not say so.
bool control_takes_space(const gguf_vocabulary& s) {
  std::string name(s.file->string("general.name").value_or(""));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return name.find("phi-3") != std::string::npos || name.find("phi3") != std::string::npos;
}

}  // namespace

std::string gguf_vocabulary::key(std::string_view name) {
  return fmt::format("tokenizer.ggml.{}", name);
}

std::optional<token_id> gguf_vocabulary::id(std::string_view name,
                                            std::optional<token_id> otherwise) const {
  const std::optional<std::int64_t> found = file->integer(key(name));
  const std::int64_t value = found.value_or(otherwise.value_or(no_token));
  if (value < 0 || value >= static_cast<std::int64_t>(spellings.size())) return std::nullopt;
  return static_cast<token_id>(value);
}

result<gguf_vocabulary> gguf_vocabulary::read(const formats::gguf_file& from) {
  gguf_vocabulary s;
  s.file = &from;
  const auto tokens = from.strings(key("tokens"));
  if (!tokens || tokens->empty()) {
    return error{errc::bad_file, "the GGUF file has no vocabulary (tokenizer.ggml.tokens)", {}};
  }
  if (tokens->size() > static_cast<std::size_t>(id_max)) {
    return error{
        errc::bad_file,
        fmt::format("the GGUF file has {} tokens; at most {} are read", tokens->size(), id_max),
        {}};
  }
  std::string storage;
  for (const std::string_view token : *tokens) s.spellings.emplace_back(valid_utf8(token, storage));
  const std::size_t count = s.spellings.size();
  s.kinds.assign(count, kind::normal);
  if (const auto types = from.integers(key("token_type"))) {
    if (types->size() != count) {
      return error{
          errc::bad_file,
          fmt::format("the GGUF file has {} tokens and {} token types", count, types->size()),
          {}};
    }
    std::transform(types->begin(), types->end(), s.kinds.begin(),
                   [](std::int64_t t) { return static_cast<kind>(t); });
  }
  s.scores.assign(count, 0);
  if (const auto scores = from.numbers(key("scores"))) {
    if (scores->size() != count ||
        std::any_of(scores->begin(), scores->end(), [](double x) { return std::isnan(x); })) {
      return error{errc::bad_file,
                   fmt::format("the GGUF file has {} tokens and {} scores, or one is no "
                               "number",
                               count, scores->size()),
                   {}};
    }
    s.scores = *scores;
  }
  // Files without types, or with wrong ones: what ends a text is control all the same.
  for (const std::string_view name :
       {"bos_token_id", "eos_token_id", "eot_token_id", "eom_token_id", "padding_token_id",
        "mask_token_id", "cls_token_id", "seperator_token_id"}) {
    if (const auto id = s.id(name)) {
      kind& k = s.kinds[static_cast<std::size_t>(*id)];
      if (k == kind::normal || k == kind::user_defined) k = kind::control;
    }
  }
  return s;
}

std::unordered_set<token_id> gguf_vocabulary::not_from_text() const {
  std::unordered_set<token_id> out;
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    if (!is(i, kind::normal)) out.insert(static_cast<token_id>(i));
  }
  return out;
}

std::vector<added_token> gguf_vocabulary::added_tokens() const {
  std::vector<added_token> tokens;
  const bool takes_space = control_takes_space(*this);
  for (std::size_t i = 0; i < spellings.size(); ++i) {
    if (!special(i) && !is(i, kind::user_defined)) continue;
    added_token token;
    token.content = spellings[i];
    token.id = static_cast<token_id>(i);
    token.special = special(i);
    token.normalized = false;
    const bool begins_text =
        token.content == "<s>" || token.content == "<unk>" || token.content == "<|endoftext|>";
    token.rstrip = takes_space && token.special && !begins_text;
    tokens.push_back(token);
  }
  return tokens;
}

result<std::vector<std::pair<std::string_view, std::string_view>>> gguf_vocabulary::merges() const {
  const auto lines = file->strings(key("merges"));
  if (!lines)
    return error{errc::bad_file, "the GGUF file has no merges (tokenizer.ggml.merges)", {}};
  std::vector<std::pair<std::string_view, std::string_view>> pairs;
  pairs.reserve(lines->size());
  for (const std::string_view line : *lines) {
    const std::size_t at = line.find(' ', 1);
    if (at == std::string_view::npos) {
      return error{
          errc::bad_file, fmt::format("merge {} of the GGUF file is no pair", pairs.size()), {}};
    }
    pairs.emplace_back(line.substr(0, at), line.substr(at + 1));
  }
  return pairs;
}

}  // namespace tandem::text
