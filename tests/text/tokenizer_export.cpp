// Tokenizer files written from GGUF vocabularies encode and decode as the vocabularies themselves.
#include "runtime/text/tokenizer_export.hpp"

#include "runtime/text/tokenizer.hpp"
#include "runtime/text/tokenizer_to_gguf.hpp"
#include "runtime/text/value.hpp"
#include "tests/support/golden.hpp"

#include <catch2/catch.hpp>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace tandem::text {
namespace {

std::vector<std::string> texts_of(const std::string& name) {
  test::golden_json file("tokenizers/" + name + ".expected.json");
  std::vector<std::string> texts;
  for (const auto one : file.root().get_array())
    texts.emplace_back(one["text"].get_string().value());
  return texts;
}

const std::vector<std::string> plain{"",
                                     " ",
                                     "Hello, world!",
                                     "  two  spaces\n\n\tand a tab ",
                                     "naïve café 東京 🙂 1234567 it's we'll",
                                     "<s> <|im_start|>user\nHi<|im_end|> <|endoftext|>",
                                     "x = [i**2 for i in range(10)] # ok"};

TEST_CASE("a tokenizer.json written from a GGUF vocabulary encodes as the vocabulary does") {
  const std::string name = GENERATE("gpt2.gguf", "llama3.gguf", "qwen2.gguf", "gpt4o.gguf",
                                    "deepseek_v3.gguf", "sp_bpe.gguf", "smollm2_vocabulary.gguf");
  INFO(name);
  const auto file = formats::gguf_file::open(test::golden("tokenizers/" + name));
  REQUIRE(file.has_value());
  const auto ours = tokenizer::from_gguf(*file);
  REQUIRE(ours.has_value());
  const auto files = tokenizer_files_from_gguf(*file, 2048);
  REQUIRE(files.has_value());
  const auto written = tokenizer::from_json(files->tokenizer_json, files->tokenizer_config_json);
  if (!written) FAIL(written.error().detail);

  CHECK((*written)->vocabulary_size() == (*ours)->vocabulary_size());
  CHECK((*written)->eos() == (*ours)->eos());
  auto texts = plain;
  if (name != "smollm2_vocabulary.gguf")
    for (auto& text : texts_of(name)) texts.push_back(std::move(text));
  for (const std::string& text : texts) {
    for (const bool parse_special : {false, true}) {
      INFO(text);
      const encode_options how{true, parse_special};
      const auto ids = (*ours)->encode(text, how);
      CHECK((*written)->encode(text, how) == ids);
      CHECK((*written)->decode(ids) == (*ours)->decode(ids));
    }
  }
}

std::string golden_text(const std::string& name) {
  std::ifstream file(test::golden("tokenizers/" + name));
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The file with added tokens that take no spaces and stand anywhere, as a GGUF file's do.
std::string plainly_added(const std::string& json) {
  auto file = value::from_json(json);
  REQUIRE(file.has_value());
  value::array tokens = *file->find("added_tokens")->if_array();
  for (value& token : tokens)
    for (const char* flag : {"lstrip", "rstrip", "single_word", "normalized"})
      token.set(flag, false);
  file->set("added_tokens", tokens);
  return file->to_json();
}

TEST_CASE("a GGUF vocabulary written from a tokenizer.json encodes as the file does") {
  const std::string name = GENERATE("gpt2", "smollm", "llama3", "qwen2", "gpt4o");
  INFO(name);
  const std::string json = plainly_added(golden_text(name + ".tokenizer.json"));
  const auto theirs = tokenizer::from_json(json);
  REQUIRE(theirs.has_value());
  const auto size = static_cast<std::int64_t>((*theirs)->vocabulary_size());
  formats::gguf_writer writer;
  if (const auto put = put_tokenizer(writer, json, {}, size + 3); !put) FAIL(put.error().detail);
  const auto bytes = writer.header();
  const auto file = formats::gguf_file::parse(bytes);
  REQUIRE(file.has_value());
  const auto written = tokenizer::from_gguf(*file);
  if (!written) FAIL(written.error().detail);
  auto texts = texts_of(name);
  texts.insert(texts.end(), plain.begin(), plain.end());
  for (const std::string& text : texts) {
    INFO(text);
    for (const bool parse_special : {false, true}) {
      const encode_options how{false, parse_special};
      CHECK((*written)->encode(text, how) == (*theirs)->encode(text, how));
    }
  }
}

TEST_CASE("a tokenizer.json that a GGUF file cannot hold is refused by what it has") {
  formats::gguf_writer writer;
  const auto refusal = [&](const std::string& name, std::int64_t size = 100'000) {
    const auto put = put_tokenizer(writer, golden_text(name + ".tokenizer.json"), {}, size);
    REQUIRE_FALSE(put.has_value());
    CHECK(put.error().code == errc::unsupported);
    return put.error().detail;
  };
  CHECK_THAT(refusal("llama2"), Catch::Contains("not byte-level BPE"));
  CHECK_THAT(refusal("t5"), Catch::Contains("its model is no BPE"));
  CHECK_THAT(refusal("gpt2", 10), Catch::Contains("has no row of the embedding"));
  CHECK_THAT(refusal("gpt2_prefix_space"), Catch::Contains("'ByteLevel'"));
}

TEST_CASE("a vocabulary of another kind is refused by name") {
  const auto file = formats::gguf_file::open(test::golden("tokenizers/bert.gguf"));
  REQUIRE(file.has_value());
  const auto refused = tokenizer_files_from_gguf(*file, 512);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == errc::unsupported);
  CHECK_THAT(refused.error().detail, Catch::Contains("'bert'") && Catch::Contains("--gguf"));
}

}  // namespace
}  // namespace tandem::text
