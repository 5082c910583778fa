#include "runtime/text/value.hpp"

#include <catch2/catch.hpp>

using tandem::text::value;

namespace {

std::string round_trip(std::string_view json) {
  auto parsed = value::from_json(json);
  return parsed ? parsed->to_json() : "refused: " + parsed.error().detail;
}

bool refused(std::string_view json) { return !value::from_json(json); }

}  // namespace

TEST_CASE("JSON comes back compact with its keys in written order") {
  CHECK(round_trip(R"( { "b" : 1, "a" : [ true, false, null, "x" ], "c": {} } )") ==
        R"({"b":1,"a":[true,false,null,"x"],"c":{}})");
  CHECK(round_trip("[]") == "[]");
  CHECK(round_trip("7") == "7");
  CHECK(round_trip("\"seven\"") == "\"seven\"");
  CHECK(round_trip("null") == "null");
  CHECK(round_trip("true") == "true");
  CHECK(round_trip("[-0.5, 1e3, 2.0]") == "[-0.5,1000.0,2.0]");
}

TEST_CASE("a repeated key keeps its first place and takes its last value") {
  CHECK(round_trip(R"({"a":1,"b":2,"a":3})") == R"({"a":3,"b":2})");
  std::string many = "{";
  for (int i = 0; i < 40; ++i) many += "\"k" + std::to_string(i) + "\":0,";
  many += "\"k7\":1,\"k39\":2}";
  auto parsed = value::from_json(many);
  REQUIRE(parsed);
  CHECK(parsed->if_object()->size() == 40);
  CHECK(*parsed->find("k7")->if_int() == 1);
  CHECK(*parsed->find("k39")->if_int() == 2);
}

TEST_CASE("whole numbers are int64 and beyond it doubles") {
  CHECK(*value::from_json("9223372036854775807")->if_int() == INT64_MAX);
  CHECK(*value::from_json("-9223372036854775808")->if_int() == INT64_MIN);
  CHECK(*value::from_json("9223372036854775808")->if_double() == 9223372036854775808.0);
  CHECK(*value::from_json("[123456789012345678901234567890]")->if_array()->at(0).if_double() ==
        123456789012345678901234567890.0);
  CHECK(*value::from_json("1.0")->if_double() == 1.0);
}

TEST_CASE("strings keep every character and are escaped on the way out") {
  auto parsed = value::from_json(R"("a\u00e9\ud83d\ude00\n\"\\\u0001\/")");
  REQUIRE(parsed);
  CHECK(*parsed->if_string() == "a\xC3\xA9\xF0\x9F\x98\x80\n\"\\\x01/");
  CHECK(parsed->to_json() == "\"a\xC3\xA9\xF0\x9F\x98\x80\\n\\\"\\\\\\u0001/\"");
}

TEST_CASE("broken JSON is refused") {
  for (auto json : {"",
                    "{",
                    "[1,]",
                    "{\"a\":1,}",
                    "[1 2]",
                    "{\"a\" 1}",
                    "{a:1}",
                    "'x'",
                    "tru",
                    "[1]]",
                    "1 2",
                    "{} x",
                    "[01]",
                    "[1.]",
                    "[+1]",
                    "[.5]",
                    "[NaN]",
                    "\"\x01\"",
                    "\"\\x\"",
                    "\"\\ud800\"",
                    "\"\xFF\"",
                    "[\"a\xC3\"]",
                    "1e999",
                    "[1}",
                    "[truex]",
                    "{\"a\":[{]}}",
                    "\"unfinished",
                    "nul",
                    "[nulls]",
                    "{\"a\":1 \"b\":2}"}) {
    INFO(json);
    CHECK(refused(json));
  }
}

TEST_CASE("nesting is bounded") {
  CHECK_FALSE(refused(std::string(150, '[') + std::string(150, ']')));
  CHECK(refused(std::string(300, '[') + std::string(300, ']')));
  CHECK(refused(std::string(1'000'000, '[')));
}

TEST_CASE("set adds a member or replaces it in place") {
  value v;
  v.set("a", 1);
  v.set("b", "two");
  v.set("a", value::array{value(nullptr), value(2.5)});
  CHECK(v.to_json() == R"({"a":[null,2.5],"b":"two"})");
  CHECK(v.find("c") == nullptr);
  CHECK(value(3).find("a") == nullptr);
}
