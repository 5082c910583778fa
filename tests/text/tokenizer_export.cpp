// Tokenizer files written from GGUF vocabularies encode and decode as the vocabularies themselves.
#include "runtime/text/tokenizer_export.hpp"

#include "runtime/text/tokenizer.hpp"
#include "runtime/text/value.hpp"
#include "tests/support/golden.hpp"

#include <catch2/catch.hpp>

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
