#include "runtime/text/tokenizer_to_gguf.hpp"

#include "runtime/text/gguf_vocabulary.hpp"
#include "runtime/text/pretokenizer.hpp"
#include "runtime/text/pretokenizer_families.hpp"
#include "runtime/text/value.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace tandem::text {
namespace {

error refused(std::string_view what) {
  return {errc::unsupported,
          fmt::format("this tokenizer.json has no form in a GGUF file: {}; export a folder instead "
                      "(without --gguf)",
                      what),
          {}};
}

std::string text_at(const value* object, std::string_view key) {
  const value* found = object != nullptr ? object->find(key) : nullptr;
  const std::string* text = found != nullptr ? found->if_string() : nullptr;
  return text != nullptr ? *text : std::string();
}

bool flag_at(const value& object, std::string_view key, bool otherwise) {
  const value* found = object.find(key);
  const bool* flag = found != nullptr ? found->if_bool() : nullptr;
  return flag != nullptr ? *flag : otherwise;
}

// A step list written as one step, or as a Sequence under `key`.
value::array steps_of(const value* one, std::string_view key) {
  if (one == nullptr || one->is_null()) return {};
  if (text_at(one, "type") != "Sequence") return {*one};
  const value* list = one->find(key);
  return list != nullptr && list->if_array() != nullptr ? *list->if_array() : value::array{};
}

// The patterns by which the pre-tokenizer splits, in the order in which they run.
result<std::vector<std::string>> patterns_of(const value& file) {
  std::vector<std::string> patterns;
  bool byte_level = false;
  for (const value& step : steps_of(file.find("pre_tokenizer"), "pretokenizers")) {
    const std::string type = text_at(&step, "type");
    if (type == "Split" && text_at(&step, "behavior") == "Isolated" &&
        !flag_at(step, "invert", false) && !text_at(step.find("pattern"), "Regex").empty()) {
      patterns.push_back(text_at(step.find("pattern"), "Regex"));
    } else if (type == "Digits" && flag_at(step, "individual_digits", false)) {
      patterns.emplace_back(R"(\p{N})");
    } else if (type == "ByteLevel" && !flag_at(step, "add_prefix_space", true)) {
      byte_level = true;
      if (flag_at(step, "use_regex", true)) patterns.emplace_back(gpt2_pattern);
    } else {
      return refused(fmt::format("its pre-tokenizer has a step '{}' of another kind", type));
    }
  }
  if (!byte_level) return refused("it is not byte-level BPE");
  return patterns;
}

struct vocabulary {
  std::vector<std::string> tokens;
  std::vector<std::int32_t> kinds;

  void put(std::int64_t id, std::string spelling, token_kind kind) {
    const auto at = static_cast<std::size_t>(id);
    tokens[at] = std::move(spelling);
    kinds[at] = static_cast<std::int32_t>(kind);
  }
  std::optional<std::uint32_t> id_of(const std::string& spelling) const {
    const auto found = std::find(tokens.begin(), tokens.end(), spelling);
    if (spelling.empty() || found == tokens.end()) return std::nullopt;
    return static_cast<std::uint32_t>(found - tokens.begin());
  }
};

result<vocabulary> vocabulary_of(const value& file, const value& model, std::int64_t size) {
  vocabulary v;
  v.tokens.resize(static_cast<std::size_t>(size));
  v.kinds.resize(v.tokens.size());
  for (std::int64_t id = 0; id < size; ++id)
    v.put(id, fmt::format("[PAD{}]", id), token_kind::unused);
  const auto bad = [&](const value* id) {
    return id == nullptr || id->if_int() == nullptr || *id->if_int() < 0 || *id->if_int() >= size;
  };
  const value* words = model.find("vocab");
  if (words == nullptr || words->if_object() == nullptr)
    return error{errc::bad_file, "tokenizer.json has no vocabulary", {}};
  for (const auto& [spelling, id] : *words->if_object()) {
    if (bad(&id)) return refused(fmt::format("token '{}' has no row of the embedding", spelling));
    v.put(*id.if_int(), spelling, token_kind::normal);
  }
  const value* added = file.find("added_tokens");
  if (added == nullptr || added->if_array() == nullptr) return v;
  for (const value& token : *added->if_array()) {
    const std::string spelling = text_at(&token, "content");
    if (bad(token.find("id")))
      return refused(fmt::format("token '{}' has no row of the embedding", spelling));
    for (const char* flag : {"lstrip", "rstrip", "single_word"})
      if (flag_at(token, flag, false))
        return refused(fmt::format("token '{}' has {} set", spelling, flag));
    v.put(*token.find("id")->if_int(), spelling,
          flag_at(token, "special", false) ? token_kind::control : token_kind::user_defined);
  }
  return v;
}

// "left right", as a list of two or as one text.
result<std::vector<std::string>> merges_of(const value& model) {
  std::vector<std::string> merges;
  const value* list = model.find("merges");
  if (list == nullptr || list->if_array() == nullptr)
    return error{errc::bad_file, "tokenizer.json has no merges", {}};
  for (const value& merge : *list->if_array()) {
    const value::array* pair = merge.if_array();
    if (merge.if_string() != nullptr) {
      merges.push_back(*merge.if_string());
    } else if (pair != nullptr && pair->size() == 2 && (*pair)[0].if_string() != nullptr &&
               (*pair)[1].if_string() != nullptr) {
      merges.push_back(*(*pair)[0].if_string() + " " + *(*pair)[1].if_string());
    } else {
      return error{
          errc::bad_file, fmt::format("merge {} of tokenizer.json is no pair", merges.size()), {}};
    }
  }
  return merges;
}

// Whether the post-processor puts `spelling` first.
bool begins_with(const value& file, const std::string& spelling) {
  for (const value& step : steps_of(file.find("post_processor"), "processors")) {
    const value* single = step.find("single");
    if (single == nullptr || single->if_array() == nullptr || single->if_array()->empty()) continue;
    return text_at(single->if_array()->front().find("SpecialToken"), "id") == spelling &&
           !spelling.empty();
  }
  return false;
}

// A token in tokenizer_config.json: its text, or an object with its "content".
std::string token_in(const value& config, std::string_view name) {
  const std::string text = text_at(&config, name);
  return text.empty() ? text_at(config.find(name), "content") : text;
}

// The normalizer: none, or NFC.
result<bool> composes(const value& file) {
  const auto steps = steps_of(file.find("normalizer"), "normalizers");
  for (const value& step : steps)
    if (text_at(&step, "type") != "NFC")
      return refused(fmt::format("its normalizer is '{}'", text_at(&step, "type")));
  return !steps.empty();
}

}  // namespace

result<void> put_tokenizer(formats::gguf_writer& to, std::string_view tokenizer_json,
                           std::string_view config_json, std::int64_t vocabulary_size) {
  const auto file = value::from_json(tokenizer_json);
  if (!file) return error{errc::bad_file, "tokenizer.json: " + file.error().detail, {}};
  const auto config =
      config_json.empty() ? result<value>(value(value::object{})) : value::from_json(config_json);
  if (!config) return error{errc::bad_file, "tokenizer_config.json: " + config.error().detail, {}};
  const value* model = file->find("model");
  if (text_at(model, "type") != "BPE") return refused("its model is no BPE");
  const auto patterns = patterns_of(*file);
  if (!patterns) return patterns.error();
  const auto compose = composes(*file);
  if (!compose) return compose.error();
  const auto name = splitting_name(*patterns, flag_at(*model, "ignore_merges", false), *compose);
  if (name.empty()) return refused("no known family of models splits its texts in this way");
  const auto v = vocabulary_of(*file, *model, vocabulary_size);
  if (!v) return v.error();
  const auto merges = merges_of(*model);
  if (!merges) return merges.error();

  to.string(gguf_vocabulary::key("model"), "gpt2");
  to.string(gguf_vocabulary::key("pre"), name);
  to.strings(gguf_vocabulary::key("tokens"), v->tokens);
  to.integers(gguf_vocabulary::key("token_type"), v->kinds);
  to.strings(gguf_vocabulary::key("merges"), *merges);
  for (const auto& [role, key] :
       {std::pair{"bos_token", "bos_token_id"}, std::pair{"eos_token", "eos_token_id"},
        std::pair{"unk_token", "unknown_token_id"}, std::pair{"pad_token", "padding_token_id"}})
    if (const auto id = v->id_of(token_in(*config, role)))
      to.integer(gguf_vocabulary::key(key), *id);
  to.boolean(gguf_vocabulary::key("add_bos_token"),
             begins_with(*file, token_in(*config, "bos_token")));
  return {};
}

}  // namespace tandem::text
