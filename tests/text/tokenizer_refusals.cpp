// Files that are broken, or ask for what we do not have, are refused with the name of the thing.
#include "runtime/text/tokenizer.hpp"

#include <fmt/format.h>
#include <catch2/catch.hpp>

using namespace tandem;
using Catch::Contains;

namespace {

// A tokenizer.json with its members replaced or added: `{"key": …}` as text.
std::string file(std::string_view members, std::string_view model = R"({"type": "BPE",
  "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]})") {
  return fmt::format(R"({{"model": {}{}{}}})", model, members.empty() ? "" : ", ", members);
}

std::string refusal(const std::string& json, errc code) {
  const auto t = text::tokenizer::from_json(json);
  REQUIRE_FALSE(t);
  CHECK(t.error().code == code);
  return t.error().detail;
}

}  // namespace

TEST_CASE("the smallest file is a tokenizer") {
  const auto t = text::tokenizer::from_json(file(""));
  REQUIRE(t);
  CHECK((*t)->encode("abba") == std::vector<text::token_id>{2, 1, 0});
  CHECK((*t)->encode("").empty());
}

TEST_CASE("an unknown component is refused by name") {
  CHECK_THAT(refusal(file(R"("normalizer": {"type": "Shout"})"), errc::unsupported),
             Contains("Shout"));
  CHECK_THAT(refusal(file(R"("pre_tokenizer": {"type": "UnicodeScripts"})"), errc::unsupported),
             Contains("UnicodeScripts"));
  CHECK_THAT(refusal(file(R"("decoder": {"type": "CTC"})"), errc::unsupported), Contains("CTC"));
  CHECK_THAT(refusal(file(R"("post_processor": {"type": "Stamp"})"), errc::unsupported),
             Contains("Stamp"));
  CHECK_THAT(refusal(file("", R"({"type": "Oracle", "vocab": {}})"), errc::unsupported),
             Contains("Oracle"));
  CHECK_THAT(refusal(file(R"("pre_tokenizer": {"type": "Sequence", "pretokenizers":
                            [{"type": "Digits"}, {"type": "Knife"}]})"),
                     errc::unsupported),
             Contains("Knife"));
}

TEST_CASE("what is no tokenizer.json is refused") {
  CHECK_THAT(refusal("", errc::bad_file), Contains("tokenizer.json"));
  CHECK_THAT(refusal("{\"model\": ", errc::bad_file), Contains("tokenizer.json"));
  CHECK_THAT(refusal("[]", errc::bad_file), Contains("tokenizer.json"));
  CHECK_THAT(refusal("{}", errc::bad_file), Contains("model"));
}

TEST_CASE("a model that does not fit together is refused with the part at fault") {
  CHECK_THAT(
      refusal(file("", R"({"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]})"), errc::bad_file),
      Contains("'b'"));
  CHECK_THAT(
      refusal(file("", R"({"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]})"), errc::bad_file),
      Contains("merge 0"));
  CHECK_THAT(
      refusal(file("", R"({"type": "BPE", "vocab": {"a": -1}, "merges": []})"), errc::bad_file),
      Contains("'a'"));
  CHECK_THAT(refusal(file("", R"({"type": "BPE", "vocab": {"a": 99999999999}, "merges": []})"),
                     errc::bad_file),
             Contains("'a'"));
  CHECK_THAT(refusal(file("", R"({"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "?"})"),
                     errc::bad_file),
             Contains("'?'"));
  CHECK_THAT(refusal(file("", R"({"type": "Unigram", "vocab": [["a", -1]], "unk_id": 7})"),
                     errc::bad_file),
             Contains("7"));
  CHECK_THAT(
      refusal(file("", R"({"type": "Unigram", "vocab": [["a"]], "unk_id": 0})"), errc::bad_file),
      Contains("entry 0"));
  CHECK_THAT(refusal(file(R"("added_tokens": [{"content": "<s>"}])"), errc::bad_file),
             Contains("<s>"));
}

TEST_CASE("an id that means two things is refused") {
  CHECK_THAT(refusal(file(R"("added_tokens": [{"id": 0, "content": "<s>"}])"), errc::bad_file),
             Contains("'<s>'"));
  CHECK_THAT(refusal(file(R"("added_tokens": [{"id": 7, "content": "a"}])"), errc::bad_file),
             Contains("'a'"));
  CHECK_THAT(
      refusal(file(R"("added_tokens": [{"id": 3, "content": "x"}, {"id": 3, "content": "y"}])"),
              errc::bad_file),
      Contains("'y'"));
}

TEST_CASE("a pattern that cannot run exactly is refused with the pattern") {
  const auto with = [](std::string_view pattern) {
    return file(fmt::format(R"("pre_tokenizer": {{"type": "Split", "pattern": {{"Regex": "{}"}},
                            "behavior": "Isolated"}})",
                            pattern));
  };
  CHECK_THAT(refusal(with("(a"), errc::unsupported), Contains("(a"));
  CHECK_THAT(refusal(with("[a"), errc::unsupported), Contains("[a"));
  CHECK_THAT(refusal(with("[a[^b]]"), errc::unsupported), Contains("negated set"));
}

TEST_CASE("a broken character map is refused") {
  const auto with = [](std::string_view map) {
    return file(fmt::format(
        R"("normalizer": {{"type": "Precompiled", "precompiled_charsmap": "{}"}})", map));
  };
  CHECK_THAT(refusal(with("%%%%"), errc::bad_file), Contains("base64"));
  CHECK_THAT(refusal(with("AAAA"), errc::bad_file), Contains("character map"));
  CHECK_THAT(refusal(with("/////w=="), errc::bad_file), Contains("character map"));
}

TEST_CASE("a folder without a tokenizer.json is refused with its path") {
  const auto t = text::tokenizer::from_folder("/no/such/folder");
  REQUIRE_FALSE(t);
  CHECK(t.error().code == errc::not_found);
  CHECK_THAT(t.error().detail, Contains("/no/such/folder"));
}

TEST_CASE("tokenizer_config.json names the ends of a text and may ask for them") {
  const std::string json = file(R"("added_tokens": [{"id": 3, "content": "<s>", "special": true},
                                                  {"id": 4, "content": "</s>", "special": true}])");
  const auto plain =
      text::tokenizer::from_json(json, R"({"bos_token": "<s>", "eos_token": {"content": "</s>"}})");
  REQUIRE(plain);
  CHECK((*plain)->bos() == 3);
  CHECK((*plain)->eos() == 4);
  CHECK((*plain)->encode("ab") == std::vector<text::token_id>{2});
  const auto begun = text::tokenizer::from_json(
      json,
      R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true, "add_eos_token": false})");
  REQUIRE(begun);
  CHECK((*begun)->encode("ab") == std::vector<text::token_id>{3, 2});
  CHECK_FALSE(text::tokenizer::from_json(json, "{"));
}
