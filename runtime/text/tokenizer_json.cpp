// tokenizer.json as a whole, and what tokenizer_config.json adds to it.
#include "runtime/text/tokenizer_json.hpp"

#include "runtime/text/json_reader.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <fstream>
#include <iterator>
#include <unordered_map>

namespace tandem::text {
namespace {

using simdjson::dom::element;

constexpr std::size_t file_bytes_max = std::size_t{256} << 20;

result<std::vector<added_token>> read_added_tokens(json_reader& file) {
  std::vector<added_token> tokens;
  std::unordered_map<token_id, std::size_t> ids;
  std::unordered_map<std::string, std::size_t> contents;
  const auto list = file.array("added_tokens");
  if (file.failed()) return file.error();
  if (!list) return tokens;
  for (const element one : *list) {
    json_reader r(one, "an added token of tokenizer.json");
    added_token token;
    const auto id = r.integer("id");
    token.content = r.needed_text("content");
    token.single_word = r.flag("single_word", false);
    token.lstrip = r.flag("lstrip", false);
    token.rstrip = r.flag("rstrip", false);
    token.special = r.flag("special", false);
    token.normalized = r.flag("normalized", !token.special);
    if (!id || *id < 0 || *id > id_max)
      r.fail(fmt::format("'{}' has no id in 0 to {}", token.content, id_max));
    if (r.failed()) return r.error();
    token.id = static_cast<token_id>(*id);
    // The first of equal ones counts.
    const auto [by_id, new_id] = ids.try_emplace(token.id, tokens.size());
    const auto [by_content, new_content] = contents.try_emplace(token.content, tokens.size());
    if (new_id && new_content) {
      tokens.push_back(std::move(token));
    } else if (by_id->second != by_content->second) {
      r.fail(fmt::format("'{}' has the id {}, and one of the two is another's", token.content,
                         token.id));
      return r.error();
    }
  }
  return tokens;
}

// The vocabulary and the added tokens must mean the same by an id.
result<void> check_added(const std::vector<added_token>& added, const tokenizer::data& d) {
  for (const added_token& token : added) {
    const token_id known = d.ids.find(token.content);
    if (token.content.empty() || known == token.id || (known == no_token && !d.has(token.id))) {
      continue;
    }
    return error{errc::bad_file,
                 fmt::format("tokenizer.json: the added token '{}' has the id {}, which its model "
                             "knows otherwise",
                             token.content, token.id),
                 {}};
  }
  return {};
}

// A token in tokenizer_config.json: its text, or an object that holds it.
std::optional<token_id> named_token(json_reader& config, std::string_view key,
                                    const tokenizer::data& d) {
  const auto found = config.find(key);
  if (!found) return std::nullopt;
  std::string_view content;
  if (found->get(content) != simdjson::SUCCESS &&
      found->at_key("content").get(content) != simdjson::SUCCESS) {
    return std::nullopt;
  }
  const token_id id = d.ids.find(content);
  if (id == no_token) return std::nullopt;
  return id;
}

result<void> read_config(std::string_view json, tokenizer::data& d) {
  simdjson::dom::parser parser;
  element root;
  if (const auto code = parser.parse(simdjson::padded_string(json)).get(root)) {
    return error{errc::bad_file,
                 fmt::format("tokenizer_config.json: {}", simdjson::error_message(code)),
                 {}};
  }
  json_reader config(root, "tokenizer_config.json");
  d.bos = named_token(config, "bos_token", d);
  d.eos = named_token(config, "eos_token", d);
  if (const auto unknown = named_token(config, "unk_token", d)) d.unknown = unknown;
  // As transformers 5 does it: either key, when written, replaces the post-processor.
  if (config.find("add_bos_token") || config.find("add_eos_token")) {
    const bool begin = config.flag("add_bos_token", false);
    const bool end = config.flag("add_eos_token", false);
    d.prefix.assign(begin && d.bos ? 1 : 0, d.bos.value_or(0));
    d.suffix.assign(end && d.eos ? 1 : 0, d.eos.value_or(0));
  }
  if (config.failed()) return config.error();
  return {};
}

result<std::string> read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return error{errc::not_found, fmt::format("cannot read {}", path.string()), {}};
  std::string bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (in.bad()) return error{errc::io, fmt::format("reading {} failed", path.string()), {}};
  return bytes;
}

// Files without a configuration: the usual names.
void guess_ends(tokenizer::data& d) {
  const auto first_of =
      [&](std::initializer_list<std::string_view> names) -> std::optional<token_id> {
    for (const std::string_view name : names) {
      const token_id id = d.ids.find(name);
      if (id != no_token && d.special[static_cast<std::size_t>(id)] != 0) return id;
    }
    return std::nullopt;
  };
  d.bos = first_of({"<s>", "<bos>", "<|begin_of_text|>", "[CLS]"});
  d.eos = first_of({"</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "[SEP]"});
}

}  // namespace

result<std::shared_ptr<const tokenizer>> tokenizer::from_json(std::string_view json,
                                                              std::string_view config) {
  if (json.size() > file_bytes_max) {
    return error{errc::too_large,
                 fmt::format("tokenizer.json has {} bytes; at most {} are read", json.size(),
                             file_bytes_max),
                 {}};
  }
  simdjson::dom::parser parser;
  element root;
  if (const auto code = parser.parse(simdjson::padded_string(json)).get(root)) {
    return error{
        errc::bad_file, fmt::format("tokenizer.json: {}", simdjson::error_message(code)), {}};
  }
  json_reader file(root, "tokenizer.json");
  auto d = std::make_unique<data>();
  const result<std::vector<added_token>> added = read_added_tokens(file);
  if (!added) return added.error();
  std::unordered_set<token_id> special;
  for (const added_token& token : *added) {
    if (token.special) special.insert(token.id);
  }
  if (const auto from = file.find("normalizer")) {
    if (auto read = read_normalizer(*from, d->normalizer); !read) return read.error();
  }
  if (const auto from = file.find("pre_tokenizer")) {
    if (auto read = read_pre_tokenizer(*from, d->pre_tokenizer); !read) return read.error();
  }
  const auto model = file.find("model");
  if (!model) return error{errc::bad_file, "tokenizer.json lacks 'model'", {}};
  const bool reads_bytes = can_read_bytes(*model) && d->pre_tokenizer.leave_bytes_to_model();
  if (auto read = read_model(*model, special, reads_bytes, *d); !read) return read.error();
  if (auto fits = check_added(*added, *d); !fits) return fits.error();
  for (const added_token& token : *added) d->add_token(token);
  if (const auto from = file.find("post_processor")) {
    if (auto read = read_post_processor(*from, *d); !read) return read.error();
  }
  if (const auto from = file.find("decoder")) {
    if (auto read = read_decoder(*from, d->decoder); !read) return read.error();
  } else {
    d->decoder.add(join_decode{});
  }
  if (config.empty()) {
    guess_ends(*d);
  } else if (auto read = read_config(config, *d); !read) {
    return read.error();
  }
  return std::shared_ptr<const tokenizer>(new tokenizer(std::move(d)));
}

result<std::shared_ptr<const tokenizer>> tokenizer::from_folder(
    const std::filesystem::path& folder) {
  const result<std::string> json = read_file(folder / "tokenizer.json");
  if (!json) return json.error();
  const std::filesystem::path config_path = folder / "tokenizer_config.json";
  std::string config;
  std::error_code ignored;
  if (std::filesystem::exists(config_path, ignored)) {
    result<std::string> read = read_file(config_path);
    if (!read) return read.error();
    config = std::move(*read);
  }
  return from_json(*json, config);
}

}  // namespace tandem::text
