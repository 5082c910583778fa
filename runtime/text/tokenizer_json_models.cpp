// The models of tokenizer.json: BPE, Unigram, WordPiece, WordLevel.
#include "runtime/text/bpe_builder.hpp"
#include "runtime/text/json_reader.hpp"
#include "runtime/text/tokenizer_json.hpp"
#include "runtime/text/unigram.hpp"
#include "runtime/text/wordpiece.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>

namespace tandem::text {
namespace {

using simdjson::dom::element;
using id_set = std::unordered_set<token_id>;

// Old files leave the type out.
std::string_view type_of(json_reader& r) {
  if (const auto type = r.text("type")) return *type;
  if (const auto vocabulary = r.find("vocab"); vocabulary && vocabulary->is_array())
    return "Unigram";
  if (r.find("merges")) return "BPE";
  if (r.find("max_input_chars_per_word")) return "WordPiece";
  return "WordLevel";
}

void read_vocabulary(json_reader& r, tokenizer::data& to) {
  const auto vocabulary = r.object("vocab");
  if (!vocabulary) return r.fail("lacks 'vocab'");
  std::size_t count = 0;
  std::size_t bytes = 0;
  for (const auto& [spelling, id] : *vocabulary) {
    ++count;
    bytes += spelling.size();
  }
  to.ids.reserve(count, bytes);
  to.spellings.reserve(count);
  for (const auto& [spelling, from] : *vocabulary) {
    std::int64_t id = -1;
    if (from.get(id) != simdjson::SUCCESS || id < 0 || id > id_max) {
      return r.fail(fmt::format("gives '{}' no id in 0 to {}", spelling, id_max));
    }
    to.add_spelling(spelling, static_cast<token_id>(id));
  }
}

std::optional<token_id> unknown_of(json_reader& r, const tokenizer::data& d) {
  const auto name = r.text("unk_token");
  if (!name) return std::nullopt;
  const token_id id = d.ids.find(*name);
  if (id != no_token) return id;
  r.fail(fmt::format("has an unk_token '{}' that is not in its vocabulary", *name));
  return std::nullopt;
}

// "a b", or ["a", "b"]
std::optional<std::pair<std::string_view, std::string_view>> merge_of(element from) {
  std::string_view text;
  if (from.get(text) == simdjson::SUCCESS) {
    const std::size_t at = text.find(' ');
    if (at == std::string_view::npos || text.find(' ', at + 1) != std::string_view::npos) {
      return std::nullopt;
    }
    return std::pair{text.substr(0, at), text.substr(at + 1)};
  }
  simdjson::dom::array pair;
  std::string_view left;
  std::string_view right;
  if (from.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
      pair.at(0).get(left) != simdjson::SUCCESS || pair.at(1).get(right) != simdjson::SUCCESS) {
    return std::nullopt;
  }
  return std::pair{left, right};
}

result<void> read_bpe(json_reader& r, const id_set& special, bool reads_bytes,
                      tokenizer::data& to) {
  read_vocabulary(r, to);
  bpe_options options;
  options.reads_bytes = reads_bytes;
  options.byte_fallback = r.flag("byte_fallback", false);
  options.fuse_unknown = r.flag("fuse_unk", false);
  options.ignore_merges = r.flag("ignore_merges", false);
  options.continuing_prefix = r.text("continuing_subword_prefix").value_or("");
  options.end_suffix = r.text("end_of_word_suffix").value_or("");
  options.unknown = unknown_of(r, to);
  options.excluded = special;
  std::vector<std::pair<std::string_view, std::string_view>> merges;
  for (const element from : r.needed_array("merges")) {
    const auto one = merge_of(from);
    if (!one) {
      r.fail(fmt::format("has a merge {} that is no pair", merges.size()));
      break;
    }
    merges.push_back(*one);
  }
  if (r.failed()) return r.error();
  to.unknown = options.unknown;
  auto model = build_bpe(to, options, merges);
  if (!model) return model.error();
  to.model = std::move(*model);
  return {};
}

result<void> read_unigram(json_reader& r, const id_set& special, tokenizer::data& to) {
  unigram::parts p;
  p.byte_fallback = r.flag("byte_fallback", false);
  p.fuse_unknown = r.flag("fuse_unk", true);
  const auto unknown = r.integer("unk_id");
  for (const element from : r.needed_array("vocab")) {
    simdjson::dom::array pair;
    std::string_view spelling;
    double score = 0;
    if (from.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
        pair.at(0).get(spelling) != simdjson::SUCCESS ||
        pair.at(1).get(score) != simdjson::SUCCESS || !std::isfinite(score)) {
      r.fail(fmt::format("has an entry {} that is no pair of text and score", p.scores.size()));
      break;
    }
    const auto id = static_cast<token_id>(p.scores.size());
    if (id > id_max) {
      r.fail(fmt::format("has over {} entries", id_max));
      break;
    }
    p.scores.push_back(score);
    to.add_spelling(spelling, id);
    if (!special.contains(id)) p.pieces.insert(spelling, id);
  }
  if (unknown && (*unknown < 0 || *unknown >= static_cast<std::int64_t>(p.scores.size()))) {
    r.fail(fmt::format("has an unk_id {} beyond its {} entries", *unknown, p.scores.size()));
  }
  if (p.scores.empty()) r.fail("has no entries");
  if (r.failed()) return r.error();
  if (unknown) p.unknown = static_cast<token_id>(*unknown);
  p.lowest_score = *std::min_element(p.scores.begin(), p.scores.end());
  p.byte_ids = byte_token_ids(to.ids);
  to.unknown = p.unknown;
  to.model = std::make_unique<unigram>(std::move(p));
  return {};
}

result<void> read_wordpiece(json_reader& r, const id_set& special, tokenizer::data& to) {
  read_vocabulary(r, to);
  wordpiece::parts p;
  const std::string_view prefix = r.text("continuing_subword_prefix").value_or("##");
  const std::int64_t longest = r.integer("max_input_chars_per_word").value_or(100);
  p.word_characters_max = static_cast<std::size_t>(std::clamp<std::int64_t>(longest, 0, 1 << 20));
  p.unknown = unknown_of(r, to);
  if (r.failed()) return r.error();
  for (std::size_t i = 0; i < to.spellings.size(); ++i) {
    const auto id = static_cast<token_id>(i);
    const std::string_view spelling = to.spellings[i];
    if (special.contains(id)) continue;
    p.beginnings.insert(spelling, id);
    if (spelling.starts_with(prefix)) p.continuations.insert(spelling.substr(prefix.size()), id);
  }
  to.unknown = p.unknown;
  to.model = std::make_unique<wordpiece>(std::move(p));
  return {};
}

result<void> read_word_level(json_reader& r, const id_set& special, tokenizer::data& to) {
  read_vocabulary(r, to);
  const auto unknown = unknown_of(r, to);
  if (r.failed()) return r.error();
  string_table pieces;
  for (std::size_t i = 0; i < to.spellings.size(); ++i) {
    const auto id = static_cast<token_id>(i);
    if (!to.spellings[i].empty() && !special.contains(id)) pieces.insert(to.spellings[i], id);
  }
  to.unknown = unknown;
  to.model = std::make_unique<word_level>(std::move(pieces), unknown);
  return {};
}

}  // namespace

result<void> read_model(element from, const id_set& special, bool reads_bytes,
                        tokenizer::data& to) {
  json_reader r(from, "the model of tokenizer.json");
  const std::string_view type = type_of(r);
  if (r.failed()) return r.error();
  if (type == "BPE") return read_bpe(r, special, reads_bytes, to);
  if (type == "Unigram") return read_unigram(r, special, to);
  if (type == "WordPiece") return read_wordpiece(r, special, to);
  if (type == "WordLevel") return read_word_level(r, special, to);
  return error{errc::unsupported, fmt::format("tokenizer.json: unknown model '{}'", type), {}};
}

bool can_read_bytes(element from) {
  json_reader r(from, "the model of tokenizer.json");
  return type_of(r) == "BPE" && !r.flag("byte_fallback", false) &&
         r.text("continuing_subword_prefix").value_or("").empty() &&
         r.text("end_of_word_suffix").value_or("").empty() && !r.failed();
}

}  // namespace tandem::text
