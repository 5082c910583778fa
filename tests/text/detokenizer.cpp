#include "runtime/formats/gguf.hpp"
#include "runtime/text/tokenizer.hpp"

#include <simdjson.h>
#include <catch2/catch.hpp>
#include <filesystem>
#include <random>

using namespace tandem;
using text::token_id;

namespace {

std::shared_ptr<const text::tokenizer> vocabulary(const std::string& name) {
  const auto file = formats::gguf_file::open(std::filesystem::path(TANDEM_GOLDEN) / "tokenizers" /
                                             (name + ".gguf"));
  REQUIRE(file);
  auto t = text::tokenizer::from_gguf(*file);
  REQUIRE(t);
  return *t;
}

}  // namespace

TEST_CASE("half a character waits for its other half") {
  const auto t = vocabulary("smollm2_vocabulary");
  const auto ids = t->encode("😀", {.add_special_tokens = false, .parse_special = false});
  REQUIRE(ids.size() > 1);
  text::detokenizer d(t);
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) CHECK(d.add(ids[i]).empty());
  CHECK(d.add(ids.back()) == "😀");
  CHECK(d.finish().empty());
}

TEST_CASE("a character that never ends comes out as U+FFFD at the end") {
  const auto t = vocabulary("smollm2_vocabulary");
  const auto ids = t->encode("😀", {.add_special_tokens = false, .parse_special = false});
  text::detokenizer d(t);
  CHECK(d.add(ids.front()).empty());
  CHECK(d.finish() == t->decode(std::vector{ids.front()}));
}

TEST_CASE("a broken character is given up when the next token cannot finish it") {
  const auto t = vocabulary("smollm2_vocabulary");
  const token_id half =
      t->encode("😀", {.add_special_tokens = false, .parse_special = false}).front();
  const token_id letter =
      t->encode("a", {.add_special_tokens = false, .parse_special = false}).front();
  text::detokenizer d(t);
  CHECK(d.add(half).empty());
  CHECK(d.add(letter) == t->decode(std::vector{half, letter}));
}

TEST_CASE("any ids in any order: steps are whole characters and join to the whole text") {
  const std::string name = GENERATE("smollm2_vocabulary", "sp_unigram", "bert", "llama3");
  const auto t = vocabulary(name);
  std::mt19937 random(7);
  std::uniform_int_distribution<token_id> any(-1, static_cast<token_id>(t->vocabulary_size()));
  for (int round = 0; round < 300; ++round) {
    text::detokenizer d(t);
    std::vector<token_id> ids;
    std::string joined;
    for (int i = 0; i < 12; ++i) {
      ids.push_back(any(random));
      const std::string step = d.add(ids.back());
      REQUIRE(simdjson::validate_utf8(step));
      joined += step;
    }
    INFO(name << " round " << round);
    CHECK(joined + d.finish() == t->decode(ids));
  }
}

TEST_CASE("byte tokens become characters as soon as they spell one") {
  const auto t = vocabulary("sp_bpe");
  text::detokenizer d(t);
  CHECK(d.add(*t->id_of("<0xE4>")).empty());
  CHECK(d.add(*t->id_of("<0xBD>")).empty());
  CHECK(d.add(*t->id_of("<0xA0>")) == "你");
  CHECK(d.add(*t->id_of("<0xFF>")) == "\xEF\xBF\xBD");
  CHECK(d.add(*t->id_of("<0xE4>")).empty());
  CHECK(d.finish() == "\xEF\xBF\xBD");
}

TEST_CASE("the space in front of a text goes, those inside stay") {
  const auto t = vocabulary("sp_bpe");
  const token_id the = *t->id_of("\xE2\x96\x81the");
  text::detokenizer d(t);
  CHECK(d.add(the) == "the");
  CHECK(d.add(the) == " the");
}

TEST_CASE("control tokens are left out unless they are asked for") {
  const auto t = vocabulary("smollm2_vocabulary");
  text::detokenizer without(t);
  text::detokenizer with(t, false);
  CHECK(without.add(2).empty());
  CHECK(with.add(2) == "<|im_end|>");
}

TEST_CASE("a copy of a detokenizer goes on independently") {
  const auto t = vocabulary("smollm2_vocabulary");
  const auto ids = t->encode("é", {.add_special_tokens = false, .parse_special = false});
  const auto smile = t->encode("😀", {.add_special_tokens = false, .parse_special = false});
  text::detokenizer first(t);
  CHECK(first.add(smile[0]).empty());
  text::detokenizer second = first;
  for (std::size_t i = 1; i + 1 < smile.size(); ++i) CHECK(first.add(smile[i]).empty());
  CHECK(first.add(smile.back()) == "😀");
  CHECK(second.finish() == t->decode(std::vector{smile[0]}));
  CHECK(first.add(ids[0]) == "é");
}
