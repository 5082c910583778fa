#include "runtime/serve/stop_matcher.hpp"

#include <random>

using namespace tandem::serve;

namespace {

struct heard {
  std::string text;
  std::optional<std::string> stop;
  bool operator==(const heard&) const = default;
};

heard listen(stop_matcher matcher, const std::vector<std::string>& pieces) {
  heard h;
  for (const std::string& piece : pieces) {
    const auto got = matcher.add(piece);
    h.text += got.text;
    h.stop = got.stop_string;
    if (h.stop) return h;
  }
  h.text += matcher.finish();
  return h;
}

std::vector<std::string> letters(const std::string& text) {
  std::vector<std::string> pieces;
  for (const char c : text) pieces.emplace_back(1, c);
  return pieces;
}

}  // namespace

TEST_CASE("a stop string is cut off, also when it spans pieces") {
  const stop_matcher m({"\n\nUser:"}, false);
  CHECK(listen(m, {"Paris.\n\nUser: and"}) == heard{"Paris.", "\n\nUser:"});
  CHECK(listen(m, {"Paris", ".\n", "\nUs", "er", ":", " and"}) == heard{"Paris.", "\n\nUser:"});
}

TEST_CASE("text is held back exactly while it may begin a stop string") {
  stop_matcher m({"STOP"}, false);
  CHECK(m.add("a S").text == "a ");
  CHECK(m.add("TO").text.empty());
  CHECK(m.add("ST").text == "STO");
  CHECK(m.add("x").text == "STx");
  CHECK(m.add("ST").text.empty());
  CHECK(m.finish() == "ST");
}

TEST_CASE("a beginning inside a beginning is not missed") {
  CHECK(listen(stop_matcher({"aab"}, false), letters("aaab")) == heard{"a", "aab"});
  CHECK(listen(stop_matcher({"abcabd"}, false), letters("abcabcabd")) == heard{"abc", "abcabd"});
}

TEST_CASE("of several stop strings the one that ends first wins, then the one that begins first") {
  CHECK(listen(stop_matcher({"cde", "bc"}, false), {"abcde"}) == heard{"a", "bc"});
  CHECK(listen(stop_matcher({"c", "bc"}, false), {"abcde"}) == heard{"a", "bc"});
  CHECK(listen(stop_matcher({"x", "y"}, false), {"1y2x"}) == heard{"1", "y"});
}

TEST_CASE("the stop string stays when it is asked for") {
  CHECK(listen(stop_matcher({"."}, true), {"One", ". Two."}) == heard{"One.", "."});
}

TEST_CASE("no stop strings, or empty ones, hold nothing back") {
  stop_matcher m({"", ""}, false);
  CHECK(m.add("anything").text == "anything");
  CHECK(m.finish().empty());
}

TEST_CASE("where nothing may stop, nothing is held, and no stop string begins there") {
  stop_matcher m({"ab"}, false);
  CHECK(m.add("xa").text == "x");
  CHECK(m.pass("b a") == "ab a");
  CHECK_FALSE(m.add("b").stop_string);
  CHECK(m.add("ab").stop_string == "ab");
}

TEST_CASE("a character of many bytes is never cut") {
  stop_matcher m({"日本", "é!"}, false);
  CHECK(m.add("今日").text == "今");
  CHECK(m.add("は").text == "日は");
  CHECK(m.add("é").text.empty());
  CHECK(m.add("è").text == "éè");
}

TEST_CASE("the outcome does not depend on how the text is cut into pieces") {
  std::mt19937 random(5);
  const auto word = [&](std::size_t most) {
    std::string text;
    for (std::size_t n = 1 + random() % most; n > 0; --n) {
      text += static_cast<char>('a' + random() % 2);
    }
    return text;
  };
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::string> stops{word(6)};
    if (random() % 2 == 0) stops.push_back(word(6));
    const std::string text = word(30);
    const heard whole = listen(stop_matcher(stops, false), {text});
    CAPTURE(text, stops);
    REQUIRE(listen(stop_matcher(stops, false), letters(text)) == whole);
    // The definition: the shortest beginning of the text that ends in a stop string.
    std::optional<std::string> first;
    std::size_t at = 0;
    for (std::size_t end = 1; end <= text.size() && !first; ++end) {
      for (const auto& stop : stops) {
        if (!std::string_view(text).substr(0, end).ends_with(stop)) continue;
        if (first && first->size() >= stop.size()) continue;
        first = stop;
        at = end - stop.size();
      }
    }
    REQUIRE(whole.stop == first);
    REQUIRE(whole.text == (first ? text.substr(0, at) : text));
  }
}
