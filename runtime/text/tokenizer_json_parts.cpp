// Normalizers, pre-tokenizers, post-processors and decoders of tokenizer.json.
#include "runtime/text/json_reader.hpp"
#include "runtime/text/tokenizer_json.hpp"

#include <fmt/format.h>
#include <array>

namespace tandem::text {
namespace {

using simdjson::dom::element;

constexpr int nesting_max = 16;

error unknown_component(std::string_view part, std::string_view type) {
  return {errc::unsupported, fmt::format("tokenizer.json: unknown {} '{}'", part, type), {}};
}

// Runs `read` for an object, or for each member of a Sequence.
template <class Read>
result<void> each_of(element from, std::string_view part, std::string_view list, const Read& read,
                     int depth = 0) {
  json_reader r(from, fmt::format("the {} of tokenizer.json", part));
  const std::string_view type = r.needed_text("type");
  if (r.failed()) return r.error();
  if (type != "Sequence") return read(type, r);
  if (depth >= nesting_max) {
    return error{errc::bad_file, fmt::format("{} nested over {} deep", r.name(), nesting_max), {}};
  }
  const auto members = r.needed_array(list);
  if (r.failed()) return r.error();
  for (const element member : members) {
    if (auto done = each_of(member, part, list, read, depth + 1); !done) return done;
  }
  return {};
}

// {"String": …} or {"Regex": …}
struct read_pattern {
  std::string literal;
  std::optional<regex> expression;
};
result<read_pattern> pattern_of(json_reader& r) {
  const auto from = r.find("pattern");
  if (!from) r.fail("lacks 'pattern'");
  if (r.failed()) return r.error();
  read_pattern out;
  std::string_view text;
  if (from->get(text) == simdjson::SUCCESS) {
    out.literal = text;
    return out;
  }
  json_reader p(*from, fmt::format("the pattern of {}", r.name()));
  if (const auto literal = p.text("String")) {
    out.literal = *literal;
    return out;
  }
  const std::string_view source = p.needed_text("Regex");
  if (p.failed()) return p.error();
  result<regex> compiled = regex::compile(source);
  if (!compiled) return compiled.error();
  out.expression = std::move(*compiled);
  return out;
}

result<std::string> from_base64(std::string_view text) {
  std::string out;
  unsigned bits = 0;
  int count = 0;
  for (const char c : text) {
    unsigned value = 0;
    if (c >= 'A' && c <= 'Z') {
      value = static_cast<unsigned>(c - 'A');
    } else if (c >= 'a' && c <= 'z') {
      value = static_cast<unsigned>(c - 'a') + 26;
    } else if (c >= '0' && c <= '9') {
      value = static_cast<unsigned>(c - '0') + 52;
    } else if (c == '+' || c == '/') {
      value = c == '+' ? 62 : 63;
    } else if (c == '=') {
      break;
    } else {
      return error{errc::bad_file, "precompiled_charsmap is not base64", {}};
    }
    bits = (bits << 6) | value;
    count += 6;
    if (count < 8) continue;
    count -= 8;
    out += static_cast<char>(static_cast<unsigned char>((bits >> count) & 0xFF));
  }
  return out;
}

result<void> add_precompiled(json_reader& r, normalizer& to) {
  const std::string_view encoded = r.needed_text("precompiled_charsmap");
  if (r.failed()) return r.error();
  const result<std::string> blob = from_base64(encoded);
  if (!blob) return blob.error();
  result<charsmap> map = charsmap::parse(*blob);
  if (!map) return map.error();
  to.add(charsmap_step{std::move(*map), false});
  return {};
}

result<void> add_replace(json_reader& r, normalizer& to) {
  result<read_pattern> pattern = pattern_of(r);
  if (!pattern) return pattern.error();
  replace_step step{std::move(pattern->literal), std::move(pattern->expression), {}};
  step.content = r.needed_text("content");
  if (r.failed()) return r.error();
  to.add(std::move(step));
  return {};
}

result<void> add_normalizer(std::string_view type, json_reader& r, normalizer& to) {
  if (type == "NFC") {
    to.add(unicode_step{unicode_form::nfc});
  } else if (type == "NFD") {
    to.add(unicode_step{unicode_form::nfd});
  } else if (type == "NFKC") {
    to.add(unicode_step{unicode_form::nfkc});
  } else if (type == "NFKD") {
    to.add(unicode_step{unicode_form::nfkd});
  } else if (type == "Lowercase") {
    to.add(lowercase_step{});
  } else if (type == "Strip") {
    to.add(strip_step{r.flag("strip_left", true), r.flag("strip_right", true)});
  } else if (type == "StripAccents") {
    to.add(strip_accents_step{});
  } else if (type == "Nmt") {
    to.add(nmt_step{});
  } else if (type == "Prepend") {
    to.add(prepend_step{std::string(r.needed_text("prepend"))});
  } else if (type == "ByteLevel") {
    to.add(byte_level_step{});
  } else if (type == "Replace") {
    return add_replace(r, to);
  } else if (type == "Precompiled") {
    return add_precompiled(r, to);
  } else if (type == "BertNormalizer") {
    bert_step step;
    step.clean_text = r.flag("clean_text", true);
    step.space_around_ideographs = r.flag("handle_chinese_chars", true);
    step.lowercase = r.flag("lowercase", true);
    step.strip_accents = r.flag("strip_accents", step.lowercase);
    to.add(step);
  } else {
    return unknown_component("normalizer", type);
  }
  if (r.failed()) return r.error();
  return {};
}

split_behavior behavior_of(json_reader& r, split_behavior otherwise) {
  constexpr std::array<std::pair<std::string_view, split_behavior>, 5> names{{
      {"Removed", split_behavior::removed},
      {"Isolated", split_behavior::isolated},
      {"MergedWithPrevious", split_behavior::merged_with_previous},
      {"MergedWithNext", split_behavior::merged_with_next},
      {"Contiguous", split_behavior::contiguous},
  }};
  const auto name = r.text("behavior");
  if (!name) return otherwise;
  for (const auto& known : names) {
    if (known.first == *name) return known.second;
  }
  r.fail(fmt::format("has an unknown behavior '{}'", *name), errc::unsupported);
  return otherwise;
}

result<void> add_split(json_reader& r, pre_tokenizer& to) {
  result<read_pattern> pattern = pattern_of(r);
  if (!pattern) return pattern.error();
  const split_behavior behavior = behavior_of(r, split_behavior::isolated);
  const bool invert = r.flag("invert", false);
  if (r.failed()) return r.error();
  if (pattern->expression) {
    to.add(regex_split{std::move(*pattern->expression), behavior, invert});
  } else {
    to.add(literal_split{std::move(pattern->literal), behavior, invert});
  }
  return {};
}

result<void> add_byte_level(json_reader& r, pre_tokenizer& to) {
  byte_level_split step;
  step.add_prefix_space = r.flag("add_prefix_space", true);
  if (r.flag("use_regex", true)) {
    result<regex> pattern = regex::compile(gpt2_pattern);
    if (!pattern) return pattern.error();
    step.pattern = std::move(*pattern);
  }
  if (r.failed()) return r.error();
  to.add(std::move(step));
  return {};
}

// Shared by the pre-tokenizer and the decoder. Older files say add_prefix_space.
prepend_scheme scheme_of(json_reader& r) {
  const prepend_scheme older =
      r.flag("add_prefix_space", true) ? prepend_scheme::always : prepend_scheme::never;
  const auto name = r.text("prepend_scheme");
  if (!name) return older;
  if (*name == "always") return prepend_scheme::always;
  if (*name == "first") return prepend_scheme::first;
  if (*name != "never")
    r.fail(fmt::format("has an unknown prepend_scheme '{}'", *name), errc::unsupported);
  return prepend_scheme::never;
}

void add_bert_split(pre_tokenizer& to) {
  to.add(character_split{is_white_space, split_behavior::removed});
  to.add(character_split{is_punctuation, split_behavior::isolated});
}

void add_simple_split(std::string_view type, json_reader& r, pre_tokenizer& to) {
  if (type == "Digits") {
    to.add(character_split{is_numeric, r.flag("individual_digits", false)
                                           ? split_behavior::isolated
                                           : split_behavior::contiguous});
  } else if (type == "Whitespace") {
    to.add(word_split{});
  } else if (type == "WhitespaceSplit") {
    to.add(character_split{is_white_space, split_behavior::removed});
  } else if (type == "Punctuation") {
    to.add(character_split{is_punctuation, behavior_of(r, split_behavior::isolated)});
  } else if (type == "CharDelimiterSplit") {
    to.add(literal_split{std::string(r.needed_text("delimiter")), split_behavior::removed, false});
  } else if (type == "FixedLength") {
    const std::int64_t length = r.integer("length").value_or(5);
    if (length < 1) r.fail(fmt::format("has a length of {}", length));
    to.add(length_split{static_cast<std::size_t>(length < 1 ? 1 : length)});
  } else if (type == "Metaspace") {
    metaspace_split step{std::string(r.text("replacement").value_or("\xE2\x96\x81")), scheme_of(r),
                         r.flag("split", true)};
    to.add(std::move(step));
  } else if (type == "BertPreTokenizer") {
    add_bert_split(to);
  } else {
    r.fail("", errc::unsupported);
  }
}

result<void> add_pre_tokenizer(std::string_view type, json_reader& r, pre_tokenizer& to) {
  if (type == "ByteLevel") return add_byte_level(r, to);
  if (type == "Split") return add_split(r, to);
  constexpr std::array<std::string_view, 8> simple = {
      "Digits",      "Whitespace", "WhitespaceSplit", "Punctuation", "CharDelimiterSplit",
      "FixedLength", "Metaspace",  "BertPreTokenizer"};
  if (std::find(simple.begin(), simple.end(), type) == simple.end()) {
    return unknown_component("pre-tokenizer", type);
  }
  add_simple_split(type, r, to);
  if (r.failed()) return r.error();
  return {};
}

result<void> add_decode_step(std::string_view type, json_reader& r, decoder& to) {
  if (type == "ByteLevel") {
    to.add(byte_level_decode{});
  } else if (type == "ByteFallback") {
    to.add(byte_fallback_decode{});
  } else if (type == "Fuse") {
    to.add(fuse_decode{});
  } else if (type == "Metaspace") {
    to.add(metaspace_decode{std::string(r.text("replacement").value_or("\xE2\x96\x81")),
                            scheme_of(r) != prepend_scheme::never});
  } else if (type == "WordPiece") {
    to.add(wordpiece_decode{std::string(r.text("prefix").value_or("##")), r.flag("cleanup", true)});
  } else if (type == "BPEDecoder") {
    to.add(word_end_decode{std::string(r.text("suffix").value_or("</w>"))});
  } else if (type == "Replace") {
    result<read_pattern> pattern = pattern_of(r);
    if (!pattern) return pattern.error();
    to.add(replace_decode{std::move(pattern->literal), std::move(pattern->expression),
                          std::string(r.needed_text("content"))});
  } else if (type == "Strip") {
    const std::string_view content = r.needed_text("content");
    const std::int64_t start = r.integer("start").value_or(0);
    const std::int64_t stop = r.integer("stop").value_or(0);
    if (content.empty() || start < 0 || stop < 0)
      r.fail("has nothing to strip, or less than none of it");
    if (r.failed()) return r.error();
    to.add(strip_decode{std::string(content), static_cast<std::size_t>(start),
                        static_cast<std::size_t>(stop)});
  } else {
    return unknown_component("decoder", type);
  }
  if (r.failed()) return r.error();
  return {};
}

// One post-processor's ids: what it puts before and behind the text.
struct ends {
  std::vector<token_id> prefix;
  std::vector<token_id> suffix;
};

token_id checked_id(json_reader& r, std::optional<std::int64_t> id) {
  if (!id || *id < 0 || *id > id_max) {
    r.fail(fmt::format("names a token without an id in 0 to {}", id_max));
    return 0;
  }
  return static_cast<token_id>(*id);
}

void read_template_item(json_reader& r, element item, bool& seen_text, ends& out) {
  json_reader part(item, "a part of the template in tokenizer.json");
  if (part.object("Sequence")) {
    if (seen_text) r.fail("has the text twice", errc::unsupported);
    seen_text = true;
    return;
  }
  const auto special = part.find("SpecialToken");
  const auto known = r.find("special_tokens");
  if (!special || !known) return r.fail("has a part that is neither text nor a special token");
  json_reader token(*special, "a special token of the template in tokenizer.json");
  const std::string_view name = token.needed_text("id");
  json_reader names(*known, "special_tokens of tokenizer.json");
  const auto described = names.find(name);
  if (!described) return r.fail(fmt::format("does not describe its special token '{}'", name));
  json_reader description(*described, "a special token of tokenizer.json");
  for (const element id : description.needed_array("ids")) {
    std::int64_t value = -1;
    if (id.get(value) != simdjson::SUCCESS) value = -1;
    (seen_text ? out.suffix : out.prefix).push_back(checked_id(r, value));
  }
  if (description.failed()) r.fail("has a special token without ids");
}

void read_template(json_reader& r, ends& out) {
  bool seen_text = false;
  for (const element item : r.needed_array("single")) read_template_item(r, item, seen_text, out);
  if (!seen_text && !r.failed()) r.fail("has a template without the text", errc::unsupported);
}

// ["[CLS]", 101]
token_id pair_id(json_reader& r, std::string_view key) {
  std::int64_t id = -1;
  if (const auto pair = r.array(key); pair && pair->size() == 2) {
    if (pair->at(1).get(id) != simdjson::SUCCESS) id = -1;
  }
  return checked_id(r, id);
}

result<void> add_post_processor(std::string_view type, json_reader& r, tokenizer::data& to) {
  ends found;
  if (type == "TemplateProcessing") {
    read_template(r, found);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    found = {{pair_id(r, "cls")}, {pair_id(r, "sep")}};
  } else if (type != "ByteLevel") {
    return unknown_component("post-processor", type);
  }
  if (r.failed()) return r.error();
  // A later one stands outside of an earlier one.
  to.prefix.insert(to.prefix.begin(), found.prefix.begin(), found.prefix.end());
  to.suffix.insert(to.suffix.end(), found.suffix.begin(), found.suffix.end());
  return {};
}

}  // namespace

result<void> read_normalizer(element from, normalizer& to) {
  return each_of(from, "normalizer", "normalizers", [&to](std::string_view type, json_reader& r) {
    return add_normalizer(type, r, to);
  });
}

result<void> read_pre_tokenizer(element from, pre_tokenizer& to) {
  return each_of(
      from, "pre-tokenizer", "pretokenizers",
      [&to](std::string_view type, json_reader& r) { return add_pre_tokenizer(type, r, to); });
}

result<void> read_decoder(element from, decoder& to) {
  return each_of(from, "decoder", "decoders", [&to](std::string_view type, json_reader& r) {
    return add_decode_step(type, r, to);
  });
}

result<void> read_post_processor(element from, tokenizer::data& to) {
  return each_of(
      from, "post-processor", "processors",
      [&to](std::string_view type, json_reader& r) { return add_post_processor(type, r, to); });
}

}  // namespace tandem::text
