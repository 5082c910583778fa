// Tokenizers from the metadata of GGUF files (tokenizer.ggml.*).
#include "runtime/formats/gguf.hpp"
#include "runtime/text/bpe_builder.hpp"
#include "runtime/text/gguf_vocabulary.hpp"
#include "runtime/text/pretokenizer_families.hpp"
#include "runtime/text/tokenizer_data.hpp"
#include "runtime/text/unigram.hpp"
#include "runtime/text/wordpiece.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <unordered_set>

namespace tandem::text {
namespace {

using formats::gguf_file;
using source = gguf_vocabulary;
using kind = token_kind;

constexpr std::string_view space = "\xE2\x96\x81";

void add_tokens(const source& s, tokenizer::data& d) {
  for (const added_token& token : s.added_tokens()) d.add_token(token);
}

void add_spellings(const source& s, tokenizer::data& d) {
  std::size_t bytes = 0;
  for (const std::string& spelling : s.spellings) bytes += spelling.size();
  d.ids.reserve(s.spellings.size(), bytes);
  d.spellings.reserve(s.spellings.size());
  for (std::size_t i = 0; i < s.spellings.size(); ++i) {
    d.add_spelling(s.spellings[i], static_cast<token_id>(i));
  }
}

void add_ends(const source& s, bool begin, bool end, tokenizer::data& d) {
  if (d.bos && s.flag("add_bos_token", begin)) d.prefix = {*d.bos};
  if (d.eos && s.flag("add_eos_token", end)) d.suffix = {*d.eos};
}

void write_spaces(tokenizer::data& d, bool prefix) {
  if (prefix) d.normalizer.add(prepend_step{" "});
  d.normalizer.add(replace_step{" ", std::nullopt, std::string(space)});
}

void read_spaces(tokenizer::data& d, bool prefix) {
  d.decoder.add(replace_decode{std::string(space), std::nullopt, " "});
  d.decoder.add(byte_fallback_decode{});
  d.decoder.add(fuse_decode{});
  if (prefix) d.decoder.add(strip_decode{" ", 1, 0});
}

result<void> read_gpt2(const source& s, std::string_view family, tokenizer::data& d) {
  result<splitting> split = splitting_by_name(family);
  if (!split) return split.error();
  const auto merges = s.merges();
  if (!merges) return merges.error();
  bpe_options options;
  options.reads_bytes = split->reads_bytes;
  options.byte_fallback = !split->reads_bytes;
  options.ignore_merges = split->ignore_merges;
  options.excluded = s.not_from_text();
  auto model = build_bpe(d, options, *merges);
  if (!model) return model.error();
  d.model = std::move(*model);
  d.pre_tokenizer = std::move(split->steps);
  if (split->compose) d.normalizer.add(unicode_step{unicode_form::nfc});
  if (split->reads_bytes) {
    d.decoder.add(byte_level_decode{});
  } else {
    write_spaces(d, false);
    read_spaces(d, false);
  }
  d.bos = s.id("bos_token_id");
  d.eos = s.id("eos_token_id");
  d.unknown = s.id("unknown_token_id");
  add_ends(s, split->add_bos, false, d);
  return {};
}

void read_sentencepiece(const source& s, tokenizer::data& d) {
  d.bos = s.id("bos_token_id", 1);
  d.eos = s.id("eos_token_id", 2);
  d.unknown = s.id("unknown_token_id", 0);
  bpe_options options;
  options.byte_fallback = true;
  options.unknown = d.unknown;
  options.excluded = s.not_from_text();
  d.model = build_bpe_by_score(d, options, s.scores);
  const bool prefix = s.flag("add_space_prefix", true);
  write_spaces(d, prefix);
  read_spaces(d, prefix);
  add_ends(s, true, false, d);
}

// The file marks beginnings of words ("▁play", "ing"); read back to BERT's own ("play", "##ing").
void restore_bert_spellings(source& s) {
  for (std::size_t i = 0; i < s.spellings.size(); ++i) {
    std::string& spelling = s.spellings[i];
    if (!s.is(i, kind::normal) || (spelling.starts_with('[') && spelling.ends_with(']'))) continue;
    if (spelling.starts_with(space)) {
      spelling.erase(0, space.size());
    } else if (!spelling.starts_with("##")) {
      spelling.insert(0, "##");
    }
  }
}

void read_bert(const source& s, tokenizer::data& d) {
  d.bos = s.id("cls_token_id", s.id("bos_token_id", 101));
  d.eos = s.id("seperator_token_id", s.id("eos_token_id", 102));
  d.unknown = s.id("unknown_token_id", 100);
  wordpiece::parts p;
  p.unknown = d.unknown;
  for (std::size_t i = 0; i < s.spellings.size(); ++i) {
    if (!s.is(i, kind::normal)) continue;
    const std::string_view spelling = s.spellings[i];
    const auto id = static_cast<token_id>(i);
    p.beginnings.insert(spelling, id);
    if (spelling.starts_with("##")) p.continuations.insert(spelling.substr(2), id);
  }
  d.model = std::make_unique<wordpiece>(std::move(p));
  bert_step step;
  step.lowercase = s.flag("normalizer.lowercase", true);
  step.strip_accents = s.flag("normalizer.strip_accents", step.lowercase);
  d.normalizer.add(step);
  d.pre_tokenizer.add(character_split{is_white_space, split_behavior::removed});
  d.pre_tokenizer.add(character_split{is_punctuation, split_behavior::isolated});
  d.decoder.add(wordpiece_decode{"##", true});
  add_ends(s, true, true, d);
}

result<void> read_t5(const source& s, tokenizer::data& d) {
  d.bos = s.id("bos_token_id");
  d.eos = s.id("eos_token_id", 1);
  d.unknown = s.id("unknown_token_id", 2);
  unigram::parts p;
  p.scores = s.scores;
  p.lowest_score = 0;
  p.single_precision = true;
  for (std::size_t i = 0; i < s.spellings.size(); ++i) {
    if (!s.is(i, kind::normal)) continue;
    p.pieces.insert(s.spellings[i], static_cast<token_id>(i));
    p.lowest_score = std::min(p.lowest_score, s.scores[i]);
  }
  p.unknown = d.unknown;
  p.byte_ids = byte_token_ids(d.ids);
  p.byte_fallback = p.byte_ids[0] != no_token;
  d.model = std::make_unique<unigram>(std::move(p));
  if (const auto numbers = s.file->integers(source::key("precompiled_charsmap"));
      numbers && !numbers->empty()) {
    std::string blob;
    for (const std::int64_t n : *numbers)
      blob += static_cast<char>(static_cast<unsigned char>(n & 0xFF));
    result<charsmap> map = charsmap::parse(blob);
    if (!map) return map.error();
    d.normalizer.add(charsmap_step{std::move(*map), true});
  }
  if (s.flag("remove_extra_whitespaces", true)) d.normalizer.add(collapse_spaces_step{});
  const bool prefix = s.flag("add_space_prefix", true);
  write_spaces(d, prefix);
  read_spaces(d, prefix);
  add_ends(s, false, true, d);
  return {};
}

}  // namespace

result<std::shared_ptr<const tokenizer>> tokenizer::from_gguf(const formats::gguf_file& file) {
  const auto model = file.string(source::key("model"));
  if (!model)
    return error{errc::bad_file, "the GGUF file has no tokenizer (tokenizer.ggml.model)", {}};
  result<source> s = source::read(file);
  if (!s) return s.error();
  if (*model == "bert") restore_bert_spellings(*s);
  auto d = std::make_unique<data>();
  d->added_are_literal = true;
  add_spellings(*s, *d);
  result<void> read;
  if (*model == "gpt2" || *model == "gemma4") {
    const std::string_view otherwise = *model == "gemma4" ? "gemma4" : "default";
    read = read_gpt2(*s, file.string(source::key("pre")).value_or(otherwise), *d);
  } else if (*model == "llama") {
    read_sentencepiece(*s, *d);
  } else if (*model == "bert") {
    read_bert(*s, *d);
  } else if (*model == "t5") {
    read = read_t5(*s, *d);
  } else {
    return error{errc::unsupported,
                 fmt::format("unknown tokenizer model '{}' (tokenizer.ggml.model); "
                             "known are gpt2, llama, bert and t5",
                             *model),
                 {}};
  }
  if (!read) return read.error();
  add_tokens(*s, *d);
  return std::shared_ptr<const tokenizer>(new tokenizer(std::move(d)));
}

}  // namespace tandem::text
