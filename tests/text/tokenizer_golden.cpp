// Every kind of tokenizer against what the reference libraries make of the same texts
// (tests/golden/tokenizers/make.py and make_gguf.py say how they were asked).
#include "runtime/formats/gguf.hpp"
#include "runtime/text/tokenizer.hpp"

#include <simdjson.h>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>

using namespace tandem;
using simdjson::dom::element;

namespace {

const std::filesystem::path golden = std::filesystem::path(TANDEM_GOLDEN);

std::string read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::shared_ptr<const text::tokenizer> from_json(const std::string& name) {
  auto t = text::tokenizer::from_json(read(golden / "tokenizers" / (name + ".tokenizer.json")));
  if (!t) FAIL(t.error().detail);
  return *t;
}

std::shared_ptr<const text::tokenizer> from_gguf(const std::string& name) {
  const auto file = formats::gguf_file::open(golden / "tokenizers" / (name + ".gguf"));
  if (!file) FAIL(file.error().detail);
  auto t = text::tokenizer::from_gguf(*file);
  if (!t) FAIL(t.error().detail);
  return *t;
}

std::vector<text::token_id> ids(element list) {
  std::vector<text::token_id> out;
  for (const element id : list) out.push_back(static_cast<text::token_id>(std::int64_t(id)));
  return out;
}

std::string string_of(element object, std::string_view key) {
  return std::string(std::string_view(object[key]));
}

std::string streamed(const std::shared_ptr<const text::tokenizer>& t,
                     const std::vector<text::token_id>& tokens) {
  text::detokenizer d(t);
  std::string out;
  for (const text::token_id id : tokens) {
    const std::string step = d.add(id);
    REQUIRE(simdjson::validate_utf8(step));
    out += step;
  }
  return out + d.finish();
}

}  // namespace

TEST_CASE("a tokenizer.json encodes and decodes as the reference library does") {
  const std::string name = GENERATE(
      "gpt2", "gpt2_prefix_space", "smollm", "llama3", "qwen2", "gpt4o", "deepseek_v3",
      "deepseek_llm", "han_intersection", "posix_classes", "llama2", "llama2_normalized_special",
      "llama2_first", "gemma", "no_bytes", "t5", "unigram_nmt_bytes", "bert_uncased", "bert_cased",
      "wordpiece_words", "word_level", "word_ends", "continuing_prefix");
  const auto t = from_json(name);
  simdjson::dom::parser parser;
  const element cases = parser.load((golden / "tokenizers" / (name + ".expected.json")).string());
  for (const element one : cases) {
    const std::string text = string_of(one, "text");
    INFO(name << ": " << text);
    const auto wanted = ids(one["ids"]);
    CHECK(t->encode(text, {.add_special_tokens = true, .parse_special = true}) == wanted);
    element plain;
    const auto plain_ids = t->encode(text, {.add_special_tokens = false, .parse_special = false});
    if (one["plain"].get(plain) != simdjson::SUCCESS) {
      CHECK(plain_ids == wanted);
    } else if (!plain.is_null()) {
      CHECK(plain_ids == ids(plain));
    }
    std::string_view decoded;
    if (one["decoded"].get(decoded) != simdjson::SUCCESS) continue;
    std::string_view kept = decoded;
    if (one["kept"].get(kept) != simdjson::SUCCESS) kept = decoded;
    CHECK(t->decode(wanted) == decoded);
    CHECK(t->decode(wanted, false) == kept);
    CHECK(streamed(t, wanted) == decoded);
  }
}

TEST_CASE("a GGUF vocabulary encodes and decodes as the library it was made with does") {
  const std::string name =
      GENERATE("sp_bpe", "sp_unigram", "bert", "gpt2", "llama3", "qwen2", "gpt4o", "deepseek_v3");
  const auto t = from_gguf(name);
  simdjson::dom::parser parser;
  const element cases =
      parser.load((golden / "tokenizers" / (name + ".gguf.expected.json")).string());
  for (const element one : cases) {
    const std::string text = string_of(one, "text");
    INFO(name << ": " << text);
    const auto wanted = ids(one["ids"]);
    CHECK(t->encode(text) == wanted);
    CHECK(t->decode(wanted) == string_of(one, "decoded"));
    CHECK(streamed(t, wanted) == string_of(one, "decoded"));
  }
}

TEST_CASE("the quickstart model's vocabulary gives the golden ids, 111 of 111") {
  const auto t = from_gguf("smollm2_vocabulary");
  simdjson::dom::parser parser;
  const element cases = parser.load((golden / "tokenizer_smollm2.json").string());
  std::size_t count = 0;
  for (const element one : cases) {
    const std::string text = string_of(one, "text");
    INFO(text);
    const auto wanted = ids(one["ids"]);
    CHECK(t->encode(text, {.add_special_tokens = true, .parse_special = true}) == wanted);
    CHECK(t->decode(wanted, false) == text);
    ++count;
  }
  CHECK(count == 111);
  CHECK(t->vocabulary_size() == 49152);
  CHECK(t->bos() == 1);
  CHECK(t->eos() == 2);
}
