#include "runtime/serve/output_text.hpp"

#include <catch2/catch.hpp>

using namespace tandem;
using namespace tandem::serve;

namespace {

// Ids 0 to 9. Byte-level BPE: "æĹ¥" spells the three bytes of 日, of which "æ" and "Ĺ¥" are pieces.
std::shared_ptr<const text::tokenizer> small() {
  auto t = text::tokenizer::from_json(R"({
    "version": "1.0",
    "added_tokens": [{"id": 9, "content": "<end>", "special": true, "single_word": false,
                      "lstrip": false, "rstrip": false, "normalized": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                      "use_regex": true},
    "post_processor": null,
    "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                "use_regex": true},
    "model": {"type": "BPE", "dropout": null, "unk_token": null,
              "continuing_subword_prefix": null, "end_of_word_suffix": null,
              "fuse_unk": false, "byte_fallback": false,
              "vocab": {"a": 0, "b": 1, "c": 2, "Ġ": 3, "æ": 4, "Ĺ": 5, "¥": 6, "ab": 7, "!": 8},
              "merges": ["a b"]}})");
  REQUIRE(t);
  return *t;
}

std::string say(output_text& out, const std::vector<token_id>& ids) {
  std::string text;
  for (const token_id id : ids) text += out.add(id).text;
  return text;
}

}  // namespace

TEST_CASE("tokens become text, and half a character is never sent") {
  output_text out(small(), {}, false, true);
  CHECK(out.add(7).text == "ab");
  CHECK(out.add(4).text.empty());
  CHECK(out.add(5).text.empty());
  CHECK(out.add(6).text == "日");
  CHECK(out.finish().empty());
}

TEST_CASE("a stop string is found across tokens and cut off") {
  output_text out(small(), {"c!"}, false, true);
  CHECK(out.add(0).text == "a");
  CHECK(out.add(2).text.empty());
  const auto last = out.add(8);
  CHECK(last.text.empty());
  CHECK(last.stop_string == "c!");
}

TEST_CASE("what was held back for a stop string that never came is the end of the text") {
  output_text out(small(), {"c!"}, false, true);
  CHECK(say(out, {0, 2}) == "a");
  CHECK(out.finish() == "c");
}

TEST_CASE("a stop string begun inside a token takes that token's end with it") {
  output_text out(small(), {"b c"}, true, true);
  CHECK(say(out, {7, 3}) == "a");
  const auto last = out.add(2);
  CHECK(last.text == "b c");
  CHECK(last.stop_string == "b c");
}

TEST_CASE("while fewer than min_tokens are out, nothing stops the text") {
  output_text out(small(), {"b"}, false, true);
  CHECK(out.add(1, false).text == "b");
  CHECK_FALSE(out.add(7, false).stop_string);
  CHECK(out.add(1, true).stop_string == "b");
}

TEST_CASE("control tokens are left out, or shown when asked for") {
  output_text hidden(small(), {}, false, true);
  CHECK(say(hidden, {0, 9, 1}) + hidden.finish() == "ab");
  output_text shown(small(), {}, false, false);
  CHECK(say(shown, {0, 9, 1}) + shown.finish() == "a<end>b");
}

TEST_CASE("a model without a tokenizer has no text and stops at no string") {
  output_text out(nullptr, {"a"}, false, true);
  CHECK(out.add(0).text.empty());
  CHECK_FALSE(out.add(0).stop_string);
  CHECK(out.finish().empty());
}
