#include "runtime/text/tokenizer_export.hpp"

#include "runtime/text/gguf_vocabulary.hpp"
#include "runtime/text/pretokenizer_families.hpp"
#include "runtime/text/utf8.hpp"
#include "runtime/text/value.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tandem::text {
namespace {

using vocabulary = gguf_vocabulary;
using ids_by_spelling = std::unordered_map<std::string_view, token_id>;

constexpr std::string_view space = "\xE2\x96\x81";

// Ids of what a text can spell; a spelling that stands there twice is its first id.
ids_by_spelling spelled_ids(const vocabulary& v) {
  ids_by_spelling ids;
  const auto excluded = v.not_from_text();
  for (std::size_t i = 0; i < v.spellings.size(); ++i)
    if (!excluded.contains(static_cast<token_id>(i)))
      ids.emplace(v.spellings[i], static_cast<token_id>(i));
  return ids;
}

value vocabulary_of(const vocabulary& v) {
  ids_by_spelling first;
  value::object all;
  for (std::size_t i = 0; i < v.spellings.size(); ++i)
    if (first.emplace(v.spellings[i], static_cast<token_id>(i)).second)
      all.emplace_back(v.spellings[i], static_cast<std::int64_t>(i));
  return all;
}

value added_tokens_of(const vocabulary& v) {
  value::array all;
  for (const added_token& token : v.added_tokens())
    all.push_back(value::object{{"id", std::int64_t{token.id}},
                                {"content", token.content},
                                {"single_word", false},
                                {"lstrip", false},
                                {"rstrip", token.rstrip},
                                {"normalized", false},
                                {"special", token.special}});
  return all;
}

value pair_of(std::string_view left, std::string_view right) {
  return value::array{std::string(left), std::string(right)};
}

// The file's merges, less those whose parts or whole no text spells: they would never be used here,
// and elsewhere a file with them is refused.
result<value> merges_of(const vocabulary& v) {
  const auto pairs = v.merges();
  if (!pairs) return pairs.error();
  const auto ids = spelled_ids(v);
  value::array merges;
  std::string whole;
  for (const auto& [left, right] : *pairs) {
    whole = left;
    whole += right;
    if (ids.contains(left) && ids.contains(right) && ids.contains(whole))
      merges.push_back(pair_of(left, right));
  }
  return value(std::move(merges));
}

// SentencePiece joins whatever makes the piece of the highest score; as a list, the pieces from the
// highest score down, each with every pair of pieces that makes it.
value merges_by_score(const vocabulary& v) {
  const auto ids = spelled_ids(v);
  std::vector<token_id> order;
  for (const auto& [spelling, id] : ids) order.push_back(id);
  std::sort(order.begin(), order.end(), [&](token_id a, token_id b) {
    const double score_a = v.scores[static_cast<std::size_t>(a)];
    const double score_b = v.scores[static_cast<std::size_t>(b)];
    return score_a != score_b ? score_a > score_b : a < b;
  });
  value::array merges;
  for (const token_id id : order) {
    const std::string_view piece = v.spellings[static_cast<std::size_t>(id)];
    for (std::size_t cut = 1; cut < piece.size(); ++cut) {
      if ((static_cast<unsigned char>(piece[cut]) & 0xC0U) == 0x80U) continue;  // inside a letter
      if (ids.contains(piece.substr(0, cut)) && ids.contains(piece.substr(cut)))
        merges.push_back(pair_of(piece.substr(0, cut), piece.substr(cut)));
    }
  }
  return merges;
}

value bpe_model(const vocabulary& v, value merges, bool ignore_merges, bool byte_fallback,
                std::optional<token_id> unknown) {
  value unknown_token;
  if (unknown) unknown_token = v.spellings[static_cast<std::size_t>(*unknown)];
  return value::object{{"type", "BPE"},
                       {"dropout", nullptr},
                       {"unk_token", std::move(unknown_token)},
                       {"continuing_subword_prefix", nullptr},
                       {"end_of_word_suffix", nullptr},
                       {"fuse_unk", byte_fallback},
                       {"byte_fallback", byte_fallback},
                       {"ignore_merges", ignore_merges},
                       {"vocab", vocabulary_of(v)},
                       {"merges", std::move(merges)}};
}

value byte_level(bool use_regex) {
  return value::object{{"type", "ByteLevel"},
                       {"add_prefix_space", false},
                       {"trim_offsets", true},
                       {"use_regex", use_regex}};
}

value sequence(std::string_view key, value::array steps) {
  return value::object{{"type", "Sequence"}, {std::string(key), std::move(steps)}};
}

value replace(std::string_view what, std::string_view with) {
  return value::object{{"type", "Replace"},
                       {"pattern", value::object{{"String", std::string(what)}}},
                       {"content", std::string(with)}};
}

// What stands at both ends of a text.
struct ends {
  std::optional<token_id> before;
  std::optional<token_id> after;
};

value post_processor(const vocabulary& v, const ends& e) {
  if (!e.before && !e.after) return nullptr;
  value::object specials;
  const auto special = [&](token_id id) {
    const std::string& spelling = v.spellings[static_cast<std::size_t>(id)];
    if (specials.empty() || specials.front().first != spelling)
      specials.emplace_back(spelling, value::object{{"id", spelling},
                                                    {"ids", value::array{std::int64_t{id}}},
                                                    {"tokens", value::array{spelling}}});
    return value(value::object{{"SpecialToken", value::object{{"id", spelling}, {"type_id", 0}}}});
  };
  value::array single;
  value::array pair;
  const auto add = [&](const char* text, bool alone) {
    const value piece =
        value::object{{"Sequence", value::object{{"id", text}, {"type_id", alone ? 0 : 1}}}};
    for (value::array* list : {&single, &pair}) {
      if (list == &single && !alone) continue;
      if (e.before) list->push_back(special(*e.before));
      list->push_back(piece);
      if (e.after) list->push_back(special(*e.after));
    }
  };
  add("A", true);
  add("B", false);
  return value::object{{"type", "TemplateProcessing"},
                       {"single", std::move(single)},
                       {"pair", std::move(pair)},
                       {"special_tokens", std::move(specials)}};
}

value whole_file(const vocabulary& v, value normalizer, value pre_tokenizer, value post,
                 value decoder, value model) {
  return value::object{{"version", "1.0"},
                       {"truncation", nullptr},
                       {"padding", nullptr},
                       {"added_tokens", added_tokens_of(v)},
                       {"normalizer", std::move(normalizer)},
                       {"pre_tokenizer", std::move(pre_tokenizer)},
                       {"post_processor", std::move(post)},
                       {"decoder", std::move(decoder)},
                       {"model", std::move(model)}};
}

ends ends_of(const vocabulary& v, bool begin, std::optional<token_id> bos,
             std::optional<token_id> eos) {
  ends e;
  if (v.flag("add_bos_token", begin)) e.before = bos;
  if (v.flag("add_eos_token", false)) e.after = eos;
  return e;
}

result<value> byte_level_file(const vocabulary& v) {
  const auto name = v.file->string(vocabulary::key("pre")).value_or("default");
  const auto split = splitting_by_name(name);
  if (!split) return split.error();
  if (!split->reads_bytes)
    return error{errc::unsupported,
                 fmt::format("a tokenizer.json for the splitting '{}' is not built in; export with "
                             "--gguf",
                             name),
                 {}};
  auto merges = merges_of(v);
  if (!merges) return merges.error();
  value::array steps;
  for (const std::string& pattern : split->patterns)
    steps.push_back(value::object{{"type", "Split"},
                                  {"pattern", value::object{{"Regex", pattern}}},
                                  {"behavior", "Isolated"},
                                  {"invert", false}});
  steps.push_back(byte_level(false));
  const auto e = ends_of(v, split->add_bos, v.id("bos_token_id"), v.id("eos_token_id"));
  return whole_file(v, split->compose ? value(value::object{{"type", "NFC"}}) : value(),
                    sequence("pretokenizers", std::move(steps)), post_processor(v, e),
                    byte_level(true),
                    bpe_model(v, std::move(*merges), split->ignore_merges, false, {}));
}

value sentencepiece_file(const vocabulary& v) {
  const bool prefix = v.flag("add_space_prefix", true);
  value::array normalizer;
  if (prefix)
    normalizer.push_back(value::object{{"type", "Prepend"}, {"prepend", std::string(space)}});
  normalizer.push_back(replace(" ", space));
  value::array decoder{replace(space, " "), value::object{{"type", "ByteFallback"}},
                       value::object{{"type", "Fuse"}}};
  if (prefix)
    decoder.push_back(
        value::object{{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  const auto e = ends_of(v, true, v.id("bos_token_id", 1), v.id("eos_token_id", 2));
  return whole_file(v, sequence("normalizers", std::move(normalizer)), nullptr,
                    post_processor(v, e), sequence("decoders", std::move(decoder)),
                    bpe_model(v, merges_by_score(v), false, true, v.id("unknown_token_id", 0)));
}

value tokenizer_config(const vocabulary& v, bool sentencepiece, std::int64_t context_length) {
  value config = value::object{{"tokenizer_class", "PreTrainedTokenizerFast"},
                               {"model_max_length", context_length},
                               {"clean_up_tokenization_spaces", false}};
  const auto name = [&](const char* as, std::optional<token_id> id) {
    if (id) config.set(as, v.spellings[static_cast<std::size_t>(*id)]);
  };
  using maybe = std::optional<token_id>;
  name("bos_token", v.id("bos_token_id", sentencepiece ? maybe(1) : maybe()));
  name("eos_token", v.id("eos_token_id", sentencepiece ? maybe(2) : maybe()));
  name("unk_token", v.id("unknown_token_id", sentencepiece ? maybe(0) : maybe()));
  name("pad_token", v.id("padding_token_id"));
  if (const auto source = v.file->string("tokenizer.chat_template"))
    config.set("chat_template", std::string(*source));
  return config;
}

}  // namespace

result<tokenizer_files> tokenizer_files_from_gguf(const formats::gguf_file& file,
                                                  std::int64_t context_length) {
  const auto model = file.string(vocabulary::key("model"));
  if (!model)
    return error{errc::bad_file, "the GGUF file has no tokenizer (tokenizer.ggml.model)", {}};
  const bool sentencepiece = *model == "llama";
  if (*model != "gpt2" && !sentencepiece)
    return error{errc::unsupported,
                 fmt::format("a tokenizer.json for the tokenizer model '{}' is not built in (gpt2 "
                             "and llama are); export with --gguf",
                             *model),
                 {}};
  const auto v = vocabulary::read(file);
  if (!v) return v.error();
  const auto json = sentencepiece ? result<value>(sentencepiece_file(*v)) : byte_level_file(*v);
  if (!json) return json.error();
  return tokenizer_files{json->to_json(),
                         tokenizer_config(*v, sentencepiece, context_length).to_json()};
}

}  // namespace tandem::text
