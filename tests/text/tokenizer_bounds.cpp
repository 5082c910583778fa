// Work stays in proportion to the text, whatever it says; and the dialect of the patterns.
#include "runtime/formats/gguf.hpp"
#include "runtime/text/regex.hpp"
#include "runtime/text/tokenizer.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>

using namespace tandem;

namespace {

std::vector<std::string> matches(std::string_view pattern, std::string_view text) {
  const auto r = text::regex::compile(pattern);
  REQUIRE(r);
  std::vector<text::text_range> found;
  r->find_all(text, found);
  std::vector<std::string> out;
  for (const auto range : found) out.emplace_back(text::slice(text, range));
  return out;
}

using strings = std::vector<std::string>;

}  // namespace

TEST_CASE("a megabyte of one thing takes time in proportion to it") {
  const auto file = formats::gguf_file::open(std::filesystem::path(TANDEM_GOLDEN) / "tokenizers" /
                                             "smollm2_vocabulary.gguf");
  REQUIRE(file);
  const auto t = text::tokenizer::from_gguf(*file);
  REQUIRE(t);
  const std::string unit = GENERATE("a", " ", "\n", " \n", "7", "!", "你", "ab");
  std::string text;
  while (text.size() < 1'000'000) text += unit;
  text += "x";
  const auto begin = std::chrono::steady_clock::now();
  const auto ids = (*t)->encode(text, {.add_special_tokens = false, .parse_special = false});
  const auto spent = std::chrono::steady_clock::now() - begin;
  CHECK((*t)->decode(ids) == text);
  // A second a megabyte is ten times what a loaded machine needs; quadratic work takes hours.
  CHECK(spent < std::chrono::seconds(20));
}

TEST_CASE("long words merge as short ones do") {
  const auto t = text::tokenizer::from_json(R"({"model": {"type": "BPE",
    "vocab": {"a": 0, "b": 1, "aa": 2, "aaaa": 3, "ab": 4},
    "merges": [["a", "a"], ["aa", "aa"], ["a", "b"]]}})");
  REQUIRE(t);
  for (std::size_t n = 1; n < 200; ++n) {
    std::vector<text::token_id> wanted(n / 4, 3);
    if (n % 4 >= 2) wanted.push_back(2);
    if (n % 2 == 1) wanted.push_back(4);
    if (n % 2 == 0) wanted.push_back(1);
    CHECK((*t)->encode(std::string(n, 'a') + "b") == wanted);
  }
}

TEST_CASE("classes mean what Oniguruma means by them") {
  CHECK(matches("\\s",
                "a\xC2\x85"
                "b\xE1\xA0\x8E"
                "c\xE3\x80\x80") == strings{"\xC2\x85", "\xE3\x80\x80"});
  CHECK(matches("\\w+", "e\xCC\x81_1 -") == strings{"e\xCC\x81_1"});
  CHECK(matches("\\h+", "xyzBEEF12g") == strings{"BEEF12"});
  CHECK(matches("[^\\s\\p{L}]+", "a!! b") == strings{"!!"});
  CHECK(matches("[\\S]+", "a b") == strings{"a", "b"});
}

TEST_CASE("sets within sets and their intersections are taken apart") {
  CHECK(matches("[\\p{L}&&[^a-z]]+", "abCDé你1") == strings{"CDé你"});
  CHECK(matches("[a-c[x-z]]+", "azbk") == strings{"azb"});
  CHECK(matches("[^\\w&&[^-]]+", "a-b!?") == strings{"-", "!?"});
  CHECK(matches("[]a]+", "a]b") == strings{"a]"});
}

TEST_CASE("a plus behind braces repeats, behind a plus it holds fast") {
  CHECK(matches("(?:ab){1,2}+", "abababab") == strings{"abababab"});
  CHECK(matches("\\p{N}{1,3}", "12345") == strings{"123", "45"});
  CHECK(matches("a++b|a", "aab") == strings{"aab"});
}

TEST_CASE("a pattern that explodes ends as no match, soon") {
  const std::string text(40, 'a');
  CHECK(matches("(?:a|a)*(?:a|a)*(?:a|a)*(?:a|a)*b", text).empty());
}
